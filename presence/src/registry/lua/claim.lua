#!lua
-- CLAIM: gives a nick to a session, when it is free, its owner's lease is not live and it is held for nobody else.
-- KEYS: 1 generation, 2 leases, 3 fence, 4 nick record, 5 skeleton, 6 session, 7 inbox, 8 session-rooms, 9 online,
--       10 gateway-nicks, 11 owned-nicks (10-11 of the claimant)
-- ARGV: 1 base, 2 incarnation, 3 session, 4 nick key, 5 nick as shown, 6 encoded skeleton, 7 '1' if shown in ASCII, else '0',
--       8 hash of the session's token, 9 an unused epoch for its inbox
-- Reply: {'OK', fence}, to the session that has it the fence it has; {'FENCED'}; {'STALE'} when the session has another
--        token since; {'IN_USE', milliseconds it is held or -1}; {'CONFUSABLE'}
-- Called by Registry::claim.
local token, epoch = ARGV[8], ARGV[9]
local claimant = incarnation .. '/' .. session .. '/'

local function is_claimant(owner)
  return string.sub(owner, 1, #claimant) == claimant
end

enter_generation()
require_open()
if not serves(incarnation) then
  return { 'FENCED' }
end
-- What comes late from before a resume must not take anything, nor bring the old token back.
if (redis.call('HGET', session_record, 'token') or token) ~= token then
  return { 'STALE' }
end
local owner = redis.call('HGET', record, 'owner')
if owner and is_claimant(owner) then
  -- The same nick in another spelling is the same claim.
  redis.call('HSET', record, 'display', display)
  redis.call('ZADD', skeletons, ascii, nick)
  return { 'OK', fence_of(owner) }
end
local refused, stale = refusal(is_claimant)
if refused then
  return refused
end

local fence = take(stale)
redis.call('HSETNX', session_record, 'epoch', epoch)
redis.call('HSETNX', session_record, 'generation', redis.call('HGET', KEYS[1], 'generation'))
keep_session('token', token)
log_event('online', '"nick":%s', cjson.encode(display), now())
return { 'OK', fence }
