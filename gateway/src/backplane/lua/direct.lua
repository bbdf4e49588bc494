#!lua
-- Puts a message into the inbox of the session that owns a nick and sends it to that session's gateway, in one step.
-- Everything is checked before the first write; without allow-oom a full Redis refuses the call whole.
--
-- KEYS: 1 leases, 2 the sender's nick, 3 the receiver's nick
-- ARGV: 1 base of all keys, 2 the receiver's nick key, 3 most keys in an idempotency bucket, 4 most messages in an inbox,
--       5 seconds it is kept, 6 owner token, 7 idempotency key, 8 message id, 9 payload
-- Answer: {verdict, seq, time, message id}; verdicts: ok, duplicate, fenced, no_such_user, offline, overloaded

local BUCKET_MS = 300000
local BUCKET_TTL_S = 660 -- a bucket is asked for during its own five minutes and the five after them

local base, token, id, payload = ARGV[1], ARGV[6], ARGV[8], ARGV[9]

local function refused(verdict)
  return { verdict, 0, 0, '' }
end

local function serves(incarnation)
  local lease = redis.call('HGET', KEYS[1], incarnation)
  return lease == 'live' or lease == 'draining'
end

local incarnation, sender = string.match(token, '^([^/]+)/([^/]+)/')
if not serves(incarnation) or redis.call('HGET', KEYS[2], 'owner') ~= token then
  return refused('fenced')
end

local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local bucket = math.floor(now / BUCKET_MS)
local current = base .. 'idempotency:' .. bucket
local previous = base .. 'idempotency:' .. (bucket - 1)
-- Scoped by nick, not by the session behind it: a retry must not reach whoever took the nick since. The key is last and
-- the others hold no bar, so no two of them can be mistaken for each other.
local field = '@' .. ARGV[2] .. '|' .. sender .. '|' .. ARGV[7]
local seen = redis.call('HGET', current, field) or redis.call('HGET', previous, field)
if seen then
  local first_seq, first_time, first_id = string.match(seen, '^(%d+) (%d+) (.*)$')
  return { 'duplicate', tonumber(first_seq), tonumber(first_time), first_id }
end

if redis.call('EXISTS', KEYS[3]) == 0 then
  return refused('no_such_user')
end
local gateway, session = string.match(redis.call('HGET', KEYS[3], 'owner') or '', '^([^/]+)/([^/]+)/')
if not gateway or not serves(gateway) then
  return refused('offline')
end
if redis.call('HLEN', current) >= tonumber(ARGV[3]) then
  return refused('overloaded')
end

local inbox = base .. 'inbox:' .. session
local seq = redis.call('HINCRBY', base .. 'session:' .. session, 'inbox', 1)
local number, stamp = string.format('%.0f', seq), string.format('%.0f', now)
redis.call('XADD', inbox, 'MAXLEN', '~', ARGV[4], number .. '-0', 'time', stamp, 'payload', payload)
redis.call('EXPIRE', inbox, ARGV[5])
redis.call('HSET', current, field, number .. ' ' .. stamp .. ' ' .. id)
redis.call('EXPIRE', current, BUCKET_TTL_S)
local head = 'D ' .. session .. ' ' .. number .. ' ' .. stamp .. ' ' .. #payload .. '\n'
redis.call('PUBLISH', base .. 'ch:gw:' .. gateway, head .. payload)
return { 'ok', seq, now, id }
