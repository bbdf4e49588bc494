#!lua
-- DIRECT: puts a message into the inbox of the session that owns a nick or had it last, and sends it to that session's
-- gateway if it is there.
-- KEYS: 1 generation, 2 leases, 3 the sender's nick, 4 the receiver's nick
-- ARGV: 1 base, 2 generation, 3 most keys in a bucket, 4 the receiver's nick key, 5 most messages in an inbox,
--       6 seconds it is kept after its session, 7 an unused epoch, 8 owner token, 9 '=<idempotency key>' or '',
--       10 message id, 11 payload
-- Reply: {1 if the receiver is there, {verdict, seq, time, message id}}; verdicts: ok, duplicate, fenced, no_such_user,
--        overloaded; or the error RECOVERING
-- Called by RedisBackplane::direct.
if refusal then
  return { err = refusal }
end
local _, _, sender, receiver = unpack(KEYS)
local _, _, _, nick, inbox_bound, inbox_seconds, fresh, token, key, id, payload = unpack(ARGV)

local incarnation, from = split_token(token)
if not serves(incarnation) or redis.call('HGET', sender, 'owner') ~= token then
  return { 0, refused('fenced') }
end

-- Where the receiver is. A session that goes by another nick now is reached under that one.
local session = redis.call('HGET', receiver, 'session')
local gateway
if session then
  local present = redis.call('HGET', base .. 'session:' .. session, 'nick') or nick
  local owner, detached = unpack(redis.call('HMGET', base .. 'nick:' .. present, 'owner', 'detached'))
  local at, owned_by = split_token(owner or '')
  gateway = owned_by == session and not detached and serves(at) and at
end

-- Scoped by nick, not by the session behind it: a retry must not reach whoever took the nick since.
local seen, field = place_of('@' .. nick, from, key, id)
local first = first_answer(seen, field)
if first then
  return { gateway and 1 or 0, first }
end
if not session then
  return { 0, refused('no_such_user') }
end
if not has_room(seen) then
  return { 0, refused('overloaded') }
end

local meta, inbox = base .. 'session:' .. session, base .. 'inbox:' .. session
local left = redis.call('TTL', meta)
local epoch, seq, time = touch(meta, inbox, number, fresh)
seq, time = seq + 1, math.max(time, now)
redis.call('XADD', inbox, 'MAXLEN', '~', inbox_bound, digits(seq) .. '-0', 'time', digits(time), 'payload', payload)
redis.call('HSET', meta, 'seq', digits(seq), 'time', digits(time))
-- While its session has a nick an inbox stays; afterwards it goes with it.
if left ~= -1 then
  redis.call('EXPIRE', meta, left > 0 and left or inbox_seconds)
  redis.call('EXPIRE', inbox, left > 0 and left or inbox_seconds)
end
note(seen, field, seq, time, id)
remember(seen)
if gateway then
  redis.call('PUBLISH', base .. 'ch:gw:' .. gateway, head('D ' .. session .. ' ' .. epoch, seq, time, payload) .. payload)
end
return { gateway and 1 or 0, { 'ok', seq, time, id } }
