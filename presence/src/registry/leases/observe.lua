#!lua flags=allow-oom
-- OBSERVE: reads the lease table for a failure detector, under the conditions of a beat. Redis refuses this script
-- while it refuses beats, so that no counter counts as unchanged meanwhile. It writes nothing itself.
-- KEYS: 1 generation, 2 leases, 3 beats, 4 gateways
-- ARGV: 1 base
-- Reply: {'OK', generation, phase, {lease row..}}
-- Called by Registry::observe, once a second from every presence process.
local _, _, beats, gateways = unpack(KEYS)

enter_generation()
if redis.acl_check_cmd and not redis.acl_check_cmd('HINCRBY', beats, '', '1') then
  error({ err = 'NOPERM no right to HINCRBY, which a beat needs' })
end
local number, phase = generation()
return { 'OK', number, phase, lease_table(beats, gateways) }
