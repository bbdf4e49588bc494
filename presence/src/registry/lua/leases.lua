#!lua flags=no-writes
-- The lease table, for observers without a lease and for listings.
-- KEYS: 1 generation, 2 leases, 3 beats, 4 gateways
-- ARGV: 1 base
-- Reply: {'OK', {lease row..}}
-- Called by Registry::leases, gateways and stats.
local _, _, beats, gateways = unpack(KEYS)
return { 'OK', lease_table(beats, gateways) }
