#!lua
-- CLAIM: gives a nick to a session, when it is free or its owner's lease is not live.
-- KEYS: 1 generation, 2 leases, 3 fence, 4 nick record, 5 skeleton, 6 session, 7 inbox, 8 online, 9 gateway-nicks,
--       10 owned-nicks (9-10 of the claimant)
-- ARGV: 1 base, 2 incarnation, 3 session, 4 nick key, 5 nick as shown, 6 encoded skeleton, 7 '1' if shown in ASCII, else '0'
-- Reply: {'OK', fence}, to the session that has it the fence it has; {'FENCED'}, {'IN_USE'}, {'CONFUSABLE'}
-- Called by Registry::claim.
local _, _, fences, record, skeletons, session_record, inbox, online, gateway_nicks, owned_nicks = unpack(KEYS)
local _, incarnation, session, nick, display, skeleton, ascii = unpack(ARGV)
local claimant = incarnation .. '/' .. session .. '/'

local function is_claimant(owner)
  return string.sub(owner, 1, #claimant) == claimant
end

enter_generation()
require_open()
if not serves(incarnation) then
  return { 'FENCED' }
end
local owner = redis.call('HGET', record, 'owner')
if owner and is_claimant(owner) then
  -- The same nick in another spelling is the same claim.
  redis.call('HSET', record, 'display', display)
  redis.call('ZADD', skeletons, ascii, nick)
  return { 'OK', string.match(owner, '%d+$') }
end
if owner and serves(incarnation_of(owner)) then
  return { 'IN_USE' }
end

-- Lookalikes: two ASCII names never conflict, so an ASCII name minds only those that are not (score 0). Whoever is found
-- first with a live owner decides; entries without one are left-overs.
local stale = {}
while true do
  local other = redis.call('ZRANGEBYSCORE', skeletons, 0, 1 - ascii, 'LIMIT', #stale, 1)[1]
  if not other then
    break
  end
  local holder = other ~= nick and redis.call('HGET', base .. 'nick:' .. other, 'owner')
  if holder and not is_claimant(holder) and serves(incarnation_of(holder)) then
    return { 'CONFUSABLE' }
  end
  stale[#stale + 1] = other
end

if owner then
  free_nick(nick, owner)
  log_offline(nick, 'gateway_lost')
end
for _, other in ipairs(stale) do
  redis.call('ZREM', skeletons, other)
end
local fence = redis.call('INCR', fences)
local time = now()
redis.call('HSET', record, 'owner', claimant .. fence, 'session', session, 'display', display, 'skeleton', skeleton,
  'since', time, 'last_active', time)
redis.call('HDEL', record, 'status')
redis.call('PERSIST', record)
redis.call('ZADD', skeletons, ascii, nick)
redis.call('ZADD', online, 0, nick)
redis.call('SADD', owned_nicks, nick)
redis.call('SADD', gateway_nicks, nick)
redis.call('EXPIRE', gateway_nicks, 900)
redis.call('HSET', session_record, 'nick', nick)
redis.call('PERSIST', session_record)
redis.call('PERSIST', inbox)
log_event('online', '"nick":%s', cjson.encode(display), time)
return { 'OK', fence }
