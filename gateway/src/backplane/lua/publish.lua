#!lua
-- Puts messages of one room into its log and onto its channel in one step, or says of each why not.
-- Everything is checked before the first write; without allow-oom a full Redis refuses the call whole.
--
-- KEYS: 1 leases, 2 room, 3 log, 4 members, 5 channel
-- ARGV: 1 base of all keys, 2 room key, 3 most keys in an idempotency bucket, 4 most messages in the log,
--       then five for each message: owner token, nick key, idempotency key, message id, payload
-- Answer: for each message {verdict, seq, time, message id}; verdicts: ok, duplicate, fenced, not_in_room, overloaded

local BUCKET_MS = 300000
local BUCKET_TTL_S = 660 -- a bucket is asked for during its own five minutes and the five after them

-- Here a changed replication id against the generation record will answer `unavailable`, once generations recover.

local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local meta = redis.call('HMGET', KEYS[2], 'seq', 'time', 'epoch')
local epoch = meta[3]
local time = math.max(now, tonumber(meta[2] or 0))
-- Meta and log are written together; the higher one wins when one of them was lost or restored alone.
local seq = tonumber(meta[1] or 0)
local top = redis.call('XREVRANGE', KEYS[3], '+', '-', 'COUNT', 1)[1]
if top then
  seq = math.max(seq, tonumber(string.match(top[1], '^%d+')))
end

local bucket = math.floor(now / BUCKET_MS)
local current = ARGV[1] .. 'idempotency:' .. bucket
local previous = ARGV[1] .. 'idempotency:' .. (bucket - 1)
local room_left = tonumber(ARGV[3]) - redis.call('HLEN', current)

-- Idempotency field -> the answer of the message of this call that took it.
local taken = {}
local answers = {}
local accepted = {}

local function first_answer(field)
  if taken[field] then
    return taken[field]
  end
  local seen = redis.call('HGET', current, field) or redis.call('HGET', previous, field)
  if not seen then
    return nil
  end
  local seen_seq, seen_time, id = string.match(seen, '^(%d+) (%d+) (.*)$')
  return { 'ok', tonumber(seen_seq), tonumber(seen_time), id }
end

local function judge(token, nick, key, id, payload)
  local incarnation, session = string.match(token, '^([^/]+)/([^/]+)/')
  local lease = redis.call('HGET', KEYS[1], incarnation)
  if lease ~= 'live' and lease ~= 'draining' then
    return { 'fenced', 0, 0, '' }
  end
  local member = redis.call('HGET', KEYS[4], nick)
  if not epoch or not member or string.sub(member, 1, #token + 1) ~= token .. ' ' then
    return { 'not_in_room', 0, 0, '' }
  end
  -- The key is last and the others hold no bar, so no two of them can be mistaken for each other.
  local field = '#' .. ARGV[2] .. '|' .. session .. '|' .. key
  local first = first_answer(field)
  if first then
    return { 'duplicate', first[2], first[3], first[4] }
  end
  if room_left <= 0 then
    return { 'overloaded', 0, 0, '' }
  end
  room_left = room_left - 1
  seq = seq + 1
  local answer = { 'ok', seq, time, id }
  taken[field] = answer
  accepted[#accepted + 1] = { answer = answer, field = field, payload = payload }
  return answer
end

for i = 5, #ARGV, 5 do
  answers[#answers + 1] = judge(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4])
end

if #accepted == 0 then
  return answers
end

local stamp = string.format('%.0f', time)
local frames = {}
for _, message in ipairs(accepted) do
  local number = string.format('%.0f', message.answer[2])
  -- The ids are seqs, so age cannot be trimmed by id: the time stands in the entry for whoever trims by age.
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[4], number .. '-0', 'time', stamp, 'payload', message.payload)
  redis.call('HSET', current, message.field, number .. ' ' .. stamp .. ' ' .. message.answer[4])
  frames[#frames + 1] = 'M ' .. epoch .. ' ' .. number .. ' ' .. stamp .. ' ' .. #message.payload .. '\n'
  frames[#frames + 1] = message.payload
end
redis.call('EXPIRE', current, BUCKET_TTL_S)
redis.call('HSET', KEYS[2], 'seq', string.format('%.0f', seq), 'time', stamp)
redis.call('PUBLISH', KEYS[5], table.concat(frames))
return answers
