#!lua
-- Enters a new incarnation into the lease table; the only script that creates a row.
-- KEYS: 1 generation, 2 leases, 3 beats, 4 gateways, 5 fence, 6 asserted
-- ARGV: 1 base, 2 incarnation, 3 JSON of what the gateway tells about itself
-- Reply: {'OK'}, also for one that serves already; {'FENCED'} for one that has ended
-- Called by Registry::open_lease.
local _, leases, beats, gateways, fence, asserted = unpack(KEYS)
local _, incarnation, info = unpack(ARGV)

enter_generation()
if redis.call('HEXISTS', leases, incarnation) == 1 then
  return { serves(incarnation) and 'OK' or 'FENCED' }
end
-- Nobody to wait for: a store that is new has nothing to recover. Should it have lost everybody, their beats tell.
if redis.call('EXISTS', leases) == 0 then
  redis.call('HSET', KEYS[1], 'phase', 'open')
end
redis.call('SETNX', fence, 0)
redis.call('SADD', asserted, incarnation)
redis.call('HSET', leases, incarnation, 'live')
redis.call('HSET', beats, incarnation, 0)
redis.call('HSET', gateways, incarnation, string.format('%d %s', now(), info))
return { 'OK' }
