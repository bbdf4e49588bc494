#!lua
-- DIRECT: puts a message into the inbox of the session that owns a nick or had it last, and sends it to that session's
-- gateway if it is there.
-- KEYS: 1 generation, 2 leases, 3 the sender's nick, 4 the receiver's nick
-- ARGV: 1 base, 2 generation, 3 most keys in a bucket, 4 repairing incarnation or '', 5 the receiver's nick key,
--       6 the session whose inbox it was in, for a repair, else '', 7 most messages in an inbox,
--       8 seconds it is kept after its session, 9 an unused epoch, 10 owner token, 11 '=<idempotency key>' or '',
--       12 message id, 13 payload
-- Reply: {1 if the receiver is there, the session whose inbox it is in, epoch, {verdict, seq, time, message id}}; verdicts:
--        ok, duplicate, fenced, no_such_user, overloaded; or the error RECOVERING
-- Called by RedisBackplane::direct, and by its repair: what is put back was checked when it was acked, so then only the
-- repairer has to serve; and it goes to the session it was given to, whoever has the nick by now.
if refusal then
  return { err = refusal }
end
local _, _, sender, receiver = unpack(KEYS)
local _, _, _, _, nick, former, inbox_bound, inbox_seconds, fresh, token, key, id, payload = unpack(ARGV)

local incarnation, from = split_token(token)
if not serves(is_repair and repairer or incarnation)
  or not is_repair and redis.call('HGET', sender, 'owner') ~= token then
  return { 0, '', '', refused('fenced') }
end

local session, gateway = whereabouts(receiver, nick, is_repair and former)

-- Scoped by nick, not by the session behind it: a retry must not reach whoever took the nick since.
local seen, field = place_of('@' .. nick, from, key, id)
local first = first_answer(seen, field)
if first then
  local known, at = string.match(first[4], '^(%S+) ?(%S*)$')
  first[4] = known
  return { gateway and 1 or 0, at, redis.call('HGET', base .. 'session:' .. at, 'epoch') or '', first }
end
if not session then
  return { 0, '', '', refused('no_such_user') }
end
if not has_room(seen) then
  return { 0, '', '', refused('overloaded') }
end

local meta, inbox = base .. 'session:' .. session, base .. 'inbox:' .. session
local left = redis.call('TTL', meta)
local epoch, seq, time = touch(meta, inbox, number, fresh)
seq, time = seq + 1, math.max(time, now)
local at, stamp = digits(seq), digits(time)
redis.call('XADD', inbox, 'MAXLEN', '~', inbox_bound, at .. '-0', 'time', stamp, 'payload', payload)
redis.call('HSET', meta, 'seq', at, 'time', stamp)
-- While its session has a nick an inbox stays; afterwards it goes with it.
if left ~= -1 then
  redis.call('EXPIRE', meta, left > 0 and left or inbox_seconds)
  redis.call('EXPIRE', inbox, left > 0 and left or inbox_seconds)
end
-- The nick may be another session's when this is asked about.
note(seen, field, at, stamp, id .. ' ' .. session)
remember(seen)
if gateway then
  redis.call('PUBLISH', base .. 'ch:gw:' .. gateway, head('D ' .. session .. ' ' .. epoch, at, stamp, payload) .. payload)
end
return { gateway and 1 or 0, session, epoch, { 'ok', seq, time, id } }
