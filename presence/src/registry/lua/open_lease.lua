#!lua
-- Enters a new incarnation into the lease table; the only script that creates a row.
-- KEYS: 1 generation, 2 leases, 3 beats, 4 gateways
-- ARGV: 1 base, 2 incarnation, 3 JSON of what the gateway tells about itself
-- Reply: {'OK'}, also for one that serves already; {'FENCED'} for one that has ended
-- Called by Registry::open_lease.
local _, leases, beats, gateways = unpack(KEYS)
local _, incarnation, info = unpack(ARGV)

enter_generation()
if redis.call('HEXISTS', leases, incarnation) == 1 then
  return { serves(incarnation) and 'OK' or 'FENCED' }
end
redis.call('HSET', leases, incarnation, 'live')
redis.call('HSET', beats, incarnation, 0)
redis.call('HSET', gateways, incarnation, string.format('%d %s', now(), info))
return { 'OK' }
