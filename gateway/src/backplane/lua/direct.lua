#!lua
-- DIRECT: appends a message to the inbox of the session that owns a nick or had it last, and sends it to that session's
-- gateway if the session is online. Refuses a message to a session that is offline and cannot be resumed. Needs
-- notes.lua, whereabouts.lua and sizes.lua.
-- KEYS: 1 generation, 2 leases, 3 the sender's nick, 4 the receiver's nick
-- ARGV: 1 base, 2 generation, 3 maximum number of notes in a bucket, 4 republishing incarnation or '', 5 the receiver's
--       nick key, 6 the session of the inbox when republishing, else '', 7 maximum number of messages in an inbox,
--       8 seconds that an inbox outlives its session, 9 an unused epoch, 10 owner token, 11 '=<idempotency key>',
--       '?<known idempotency key>' or '', 12 message id, 13 payload, 14 maximum number of bytes in an inbox
-- Reply: {1 if the receiver is online, the session of the inbox, epoch, {verdict, seq, time, message id}}; verdicts:
--        ok, duplicate, fenced, no_such_user, exhausted (time: milliseconds until then); or the error RECOVERING
-- Called by RedisBackplane::direct and by the republish task. A republished message was checked before its ack, so only
-- the republishing lease is checked; the message goes to its first inbox, even if the nick has another owner now.
if refusal then
  return { err = refusal }
end
local _, _, sender, receiver = unpack(KEYS)
local _, _, _, _, nick, inbox_session, inbox_bound, inbox_seconds, fresh, token, key, id, payload = unpack(ARGV)
local inbox_bytes = ARGV[14]

local incarnation, from = split_token(token)
if not serves(is_republish and republisher or incarnation)
  or not is_republish and redis.call('HGET', sender, 'owner') ~= token then
  return { 0, '', '', refused('fenced') }
end

local session, gateway = whereabouts(receiver, nick, is_republish and inbox_session)

-- Returns true if a client may still resume the session, and read its inbox then. A text client has no token; a session
-- without a record has expired. A republished message was checked before its ack.
local function can_return(session)
  return is_republish or (redis.call('HGET', base .. 'session:' .. session, 'token') or '') ~= ''
end

-- The key's scope is the nick, not its session: a retry must not reach a later owner of the nick. A message without a
-- client's key is noted under its id, for the retries of its gateway.
local seen, field = bucket('attempts', 30000), id
if key ~= '' then
  seen, field = bucket('idempotency', 300000), key_field('@' .. nick, from, key)
end
recall(seen, { field })
local first = first_answer(seen, field)
if first then
  local known, at = string.match(first[4], '^(%S+) ?(%S*)$')
  first[4] = known
  return { gateway and 1 or 0, at, redis.call('HGET', base .. 'session:' .. at, 'epoch') or '', first }
end
if not session or not gateway and not can_return(session) then
  return { 0, '', '', refused('no_such_user') }
end
local full = exhausted(seen, key)
if full then
  return { 0, '', '', full }
end

local meta, inbox = base .. 'session:' .. session, base .. 'inbox:' .. session
local ttl = redis.call('TTL', meta)
local epoch, seq, time, _, _, bytes = touch(meta, inbox, number, fresh)
seq, time, bytes = seq + 1, math.max(time, now), bytes + #payload
local at, stamp = digits(seq), digits(time)
redis.call('XADD', inbox, 'MAXLEN', '~', inbox_bound, at .. '-0', 'time', stamp, 'payload', payload)
if seq == 1 then
  shrink(inbox)
end
redis.pcall('HSET', meta, 'seq', at, 'time', stamp, 'bytes', bytes)
local limits = size_limits(inbox_bound, inbox_bytes)
local mark = mark_at(limits, seq, bytes, payload)
if mark ~= '' then
  bound_size(meta, inbox, '@' .. session, limits, bytes, seq, mark)
end
-- An inbox is kept while its session has a nick; afterwards it expires with the session record.
if ttl ~= -1 then
  redis.pcall('EXPIRE', meta, ttl > 0 and ttl or inbox_seconds)
  redis.pcall('EXPIRE', inbox, ttl > 0 and ttl or inbox_seconds)
end
-- The session is part of the note, because the nick may have another owner at the time of a retry.
note(seen, field, at, stamp, id .. ' ' .. session)
remember(seen)
if gateway then
  redis.pcall('PUBLISH', base .. 'ch:gw:' .. gateway, head('D ' .. session .. ' ' .. epoch, at, stamp, payload) .. payload)
end
return { gateway and 1 or 0, session, epoch, { 'ok', seq, time, id } }
