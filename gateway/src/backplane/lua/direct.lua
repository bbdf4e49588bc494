#!lua
-- DIRECT: puts a message into the inbox of the session that owns a nick and sends it to that session's gateway.
-- KEYS: 1 leases, 2 the sender's nick, 3 the receiver's nick
-- ARGV: 1 base, 2 most keys in an idempotency bucket, 3 the receiver's nick key, 4 most messages in an inbox,
--       5 seconds it is kept, 6 owner token, 7 idempotency key, 8 message id, 9 payload
-- Reply: {verdict, seq, time, message id}; verdicts: ok, duplicate, fenced, no_such_user, offline, overloaded
-- Called by RedisBackplane::direct.
local _, sender, receiver = unpack(KEYS)
local _, _, nick, inbox_bound, inbox_seconds, token, key, id, payload = unpack(ARGV)

local incarnation, session = split_token(token)
if not serves(incarnation) or redis.call('HGET', sender, 'owner') ~= token then
  return refused('fenced')
end
-- Scoped by nick, not by the session behind it: a retry must not reach whoever took the nick since. The key is last and
-- the others hold no bar, so no two of them can be mistaken for each other.
local field = '@' .. nick .. '|' .. session .. '|' .. key
local first = first_answer(field)
if first then
  return first
end
if redis.call('EXISTS', receiver) == 0 then
  return refused('no_such_user')
end
local gateway, owner = split_token(redis.call('HGET', receiver, 'owner') or '')
if not gateway or not serves(gateway) or redis.call('HEXISTS', receiver, 'detached') == 1 then
  return refused('offline')
end
if room_for_keys <= 0 then
  return refused('overloaded')
end

local inbox = base .. 'inbox:' .. owner
local seq = redis.call('HINCRBY', base .. 'session:' .. owner, 'inbox', 1)
redis.call('XADD', inbox, 'MAXLEN', '~', inbox_bound, digits(seq) .. '-0', 'time', digits(now), 'payload', payload)
redis.call('EXPIRE', inbox, inbox_seconds)
remember(field, seq, now, id)
redis.call('PUBLISH', base .. 'ch:gw:' .. gateway, head('D', owner, seq, now, payload) .. payload)
return { 'ok', seq, now, id }
