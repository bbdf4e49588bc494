#!lua flags=allow-oom
-- SET_LEASE: records that a gateway drains, or has drained; its detached sessions are held.
-- KEYS: 1 generation, 2 leases, 3 ended
-- ARGV: 1 base, 2 incarnation, 3 state, 4 milliseconds for which a drained one's sessions are held
-- Reply: {'OK'}, also if the lease is in that state already; {'FENCED'} if it has ended
-- Called by Registry::set_lease.
local _, leases, ended = unpack(KEYS)
local _, incarnation, state, hold = unpack(ARGV)

enter_generation()
if redis.call('HGET', leases, incarnation) == state then
  return { 'OK' }
end
if not serves(incarnation) then
  return { 'FENCED' }
end
redis.call('HSET', leases, incarnation, state)
if not serves(incarnation) then
  redis.call('HSET', ended, incarnation, now() + hold)
end
return { 'OK' }
