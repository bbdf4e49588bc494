#!lua flags=no-writes
-- LEASES: reads the lease table, for listings.
-- KEYS: 1 generation, 2 leases, 3 beats, 4 gateways
-- ARGV: 1 base
-- Reply: {'OK', generation, phase, {lease row..}}
-- Called by Registry::leases, gateways and stats.
local _, _, beats, gateways = unpack(KEYS)
local number, phase = generation()
return { 'OK', number, phase, lease_table(beats, gateways) }
