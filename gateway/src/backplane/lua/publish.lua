#!lua
-- PUBLISH: appends messages to one room's stream and publishes them on its channel in one step; each gets a verdict.
-- KEYS: 1 generation, 2 leases, 3 room, 4 stream, 5 members, 6 channel
-- ARGV: 1 base, 2 generation, 3 maximum number of keys in a bucket, 4 republishing incarnation or '', 5 room key,
--       6 maximum number of messages in the stream, 7 their maximum age in milliseconds, 8 an unused epoch, 9 seconds
--       that a quiet room outlives its last member, then five for each message: owner token, nick key, '=<idempotency
--       key>', '?<known idempotency key>' or '', message id, payload
-- Reply: {epoch, {for each message {verdict, seq, time, message id}}}; verdicts: ok, duplicate, fenced, not_in_room,
--        exhausted (time: milliseconds until then); or the error RECOVERING
-- Called by RedisBackplane::publish and by the republish task. A republished message was checked before its ack, and
-- its sender may have left since, so only the republishing lease is checked.
if refusal then
  return { err = refusal }
end
local _, _, meta, stream, members, channel = unpack(KEYS)
local room, stream_bound, oldest_time, fresh, quiet_s = ARGV[5], ARGV[6], now - ARGV[7], ARGV[8], ARGV[9]

-- Lifetime of a room without members, as after its last member left; its meta outlives every position.
local EMPTY_S = 72 * 3600

-- The seq from which a room is not quiet, as in script/leaves.lua.
local BUSY_SEQ = 3

-- Maximum number of messages that one call trims by age. A power of two, more than a call can append.
local TRIM_STEP = 256

local epoch, seq, time, stamp, oldest, is_new
local accepted = {}
-- Idempotency field -> the message of this call that has it.
local taken = {}

local function judge(token, nick, key, id, payload)
  local incarnation, session = split_token(token)
  if not serves(is_republish and republisher or incarnation) then
    return refused('fenced')
  end
  local member = not is_republish and redis.call('HGET', members, nick)
  if not is_republish and (not member or string.sub(member, 1, #token + 1) ~= token .. ' ') then
    return refused('not_in_room')
  end
  local seen, field = key_slot('#' .. room, session, key, id)
  local first = taken[field]
  if first then
    return { 'duplicate', first.seq, time, first.id }
  end
  local answer = first_answer(seen, field)
  if answer then
    return answer
  end
  if not has_space(seen, key) then
    return exhausted(seen)
  end
  if not epoch then
    epoch, seq, time, _, oldest = touch(meta, stream, number, fresh)
    is_new = seq == 0
    time = math.max(time, now)
    stamp = digits(time)
  end
  seq = seq + 1
  local message = { seq = seq, at = digits(seq), id = id, payload = payload }
  taken[field] = message
  accepted[#accepted + 1] = message
  note(seen, field, message.at, stamp, id)
  return { 'ok', seq, time, id }
end

-- Returns the seq of the first entry from `seq` on if it is too old, else nil and its time.
local function expired(seq)
  local entry = redis.pcall('XRANGE', stream, seq, '+', 'COUNT', 1)[1]
  local written = entry and entry[2][1] == 'time' and tonumber(entry[2][2])
  if written and written < oldest_time then
    return tonumber(string.match(entry[1], '^%d+'))
  end
  return nil, written
end

-- Entry ids are seqs, so an entry's age needs a read. Times never decrease, so one old entry proves that all before it
-- are old: the step is halved until it ends on an old entry. Usually the first entry is known to be young enough.
local function trim_by_age()
  if oldest and oldest >= oldest_time then
    return
  end
  local first, written = expired('-')
  if written then
    redis.pcall('HSET', meta, 'oldest', digits(written))
  end
  if not first then
    return
  end
  local step, last = TRIM_STEP, first
  while step > 1 and last == first do
    last = expired(digits(first + step - 1)) or first
    step = step / 2
  end
  redis.pcall('XTRIM', stream, 'MINID', '=', digits(last + 1) .. '-0')
end

local answers = {}
for i = 10, #ARGV, 5 do
  answers[#answers + 1] = judge(unpack(ARGV, i, i + 4))
end
if #accepted == 0 then
  return { redis.call('HGET', meta, 'epoch') or '', answers }
end

local frames = {}
for _, message in ipairs(accepted) do
  redis.call('XADD', stream, 'MAXLEN', '~', stream_bound, message.at .. '-0', 'time', stamp, 'payload', message.payload)
  frames[#frames + 1] = head('M ' .. epoch, message.at, stamp, message.payload)
  frames[#frames + 1] = message.payload
end
remember(keys_seen)
remember(attempts_seen)
if is_new then
  shrink(stream)
end
if seq < BUSY_SEQ then
  redis.pcall('HSET', meta, 'seq', digits(seq), 'time', stamp, 'quiet', quiet_s)
else
  redis.pcall('HSET', meta, 'seq', digits(seq), 'time', stamp)
end
trim_by_age()
if is_republish and redis.pcall('EXISTS', members) == 0 then
  local empty_s = seq < BUSY_SEQ and quiet_s or EMPTY_S
  redis.pcall('EXPIRE', stream, empty_s)
  redis.pcall('EXPIRE', meta, empty_s + 3600)
end
redis.pcall('PUBLISH', channel, table.concat(frames))
return { epoch, answers }
