#!lua
-- PUBLISH: puts messages of one room into its log and onto its channel in one step, or says of each why not.
-- KEYS: 1 generation, 2 leases, 3 room, 4 log, 5 members, 6 channel
-- ARGV: 1 base, 2 generation, 3 most keys in a bucket, 4 repairing incarnation or '', 5 room key, 6 most messages in the
--       log, 7 how old they may be in milliseconds, 8 an unused epoch,
--       then five for each message: owner token, nick key, '=<idempotency key>' or '', message id, payload
-- Reply: {epoch, {for each message {verdict, seq, time, message id}}}; verdicts: ok, duplicate, fenced, not_in_room,
--        overloaded; or the error RECOVERING
-- Called by RedisBackplane::publish, and by its repair: what is put back was checked when it was acked, and whoever said it
-- may have left since, so then only the repairer has to serve.
if refusal then
  return { err = refusal }
end
local _, _, meta, log, members, channel = unpack(KEYS)
local room, most_kept, oldest_kept, fresh = ARGV[5], ARGV[6], now - ARGV[7], ARGV[8]

-- Seconds that a room without members is remembered, as when the last one leaves; its meta outlives every cursor.
local EMPTY_S = 72 * 3600

-- Most messages that one call takes away because of their age. A power of two, above what a call can add.
local TRIM_STEP = 256

local epoch, seq, time, stamp, oldest
local accepted = {}
-- Idempotency field -> the message of this call that took it.
local taken = {}

local function judge(token, nick, key, id, payload)
  local incarnation, session = split_token(token)
  if not serves(is_repair and repairer or incarnation) then
    return refused('fenced')
  end
  local member = not is_repair and redis.call('HGET', members, nick)
  if not is_repair and (not member or string.sub(member, 1, #token + 1) ~= token .. ' ') then
    return refused('not_in_room')
  end
  local seen, field = place_of('#' .. room, session, key, id)
  local first = taken[field]
  if first then
    return { 'duplicate', first.seq, time, first.id }
  end
  local answer = first_answer(seen, field)
  if answer then
    return answer
  end
  if not has_room(seen) then
    return refused('overloaded')
  end
  if not epoch then
    epoch, seq, time, _, oldest = touch(meta, log, number, fresh)
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

-- The seq of the first entry from `seq` on if it is too old, else nil and its time.
local function expired(seq)
  local entry = redis.call('XRANGE', log, seq, '+', 'COUNT', 1)[1]
  local written = entry and entry[2][1] == 'time' and tonumber(entry[2][2])
  if written and written < oldest_kept then
    return tonumber(string.match(entry[1], '^%d+'))
  end
  return nil, written
end

-- The ids are seqs, so age is found by looking. Times never go back, so one look tells about everything before it: the
-- step is halved until it ends on a message that has to go. Usually the first one is known to stay.
local function trim_by_age()
  if oldest and oldest >= oldest_kept then
    return
  end
  local first, written = expired('-')
  if written then
    redis.call('HSET', meta, 'oldest', digits(written))
  end
  if not first then
    return
  end
  local step, last = TRIM_STEP, first
  while step > 1 and last == first do
    last = expired(digits(first + step - 1)) or first
    step = step / 2
  end
  redis.call('XTRIM', log, 'MINID', '=', digits(last + 1) .. '-0')
end

local answers = {}
for i = 9, #ARGV, 5 do
  answers[#answers + 1] = judge(unpack(ARGV, i, i + 4))
end
if #accepted == 0 then
  return { redis.call('HGET', meta, 'epoch') or '', answers }
end

local frames = {}
for _, message in ipairs(accepted) do
  redis.call('XADD', log, 'MAXLEN', '~', most_kept, message.at .. '-0', 'time', stamp, 'payload', message.payload)
  frames[#frames + 1] = head('M ' .. epoch, message.at, stamp, message.payload)
  frames[#frames + 1] = message.payload
end
remember(keys_seen)
remember(attempts_seen)
redis.call('HSET', meta, 'seq', digits(seq), 'time', stamp)
trim_by_age()
if is_repair and redis.call('EXISTS', members) == 0 then
  redis.call('EXPIRE', log, EMPTY_S)
  redis.call('EXPIRE', meta, EMPTY_S + 3600)
end
redis.call('PUBLISH', channel, table.concat(frames))
return { epoch, answers }
