#!lua
-- TYPING: sends a typing notice to the gateway of a nick's owner. Nothing is stored. Needs whereabouts.lua.
-- KEYS: 1 generation, 2 leases, 3 the receiver's nick
-- ARGV: 1 base, 2 generation, 3 maximum number of notes in a bucket, 4 '', 5 the receiver's nick key, 6 the typing
--       user's shown nick
-- Reply: nil, or the error RECOVERING
-- Called by RedisBackplane::typing.
if refusal then
  return { err = refusal }
end
local session, gateway = whereabouts(KEYS[3], ARGV[5])
if gateway then
  redis.call('PUBLISH', base .. 'ch:gw:' .. gateway, 'W ' .. session .. ' ' .. #ARGV[6] .. '\n' .. ARGV[6])
end
return false
