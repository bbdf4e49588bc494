#!lua flags=allow-oom
-- LIFT: ends an entry of the list of sanctions before its time.
-- KEYS: 1 generation, 2 leases, 3 sanctions, 4 sanction-order, 5 sanction-ends, 6 sanctions-lifted
-- ARGV: 1 base, 2 id, 3 kind
-- Reply: {'OK'} if it was in force, else {'NO'}
-- Called by Registry::lift.
local _, leases, list, order, ends = unpack(KEYS)
local _, id, kind = unpack(ARGV)

enter_generation()
require_open()
forget_ended(list, order, ends)
local before = redis.call('HGET', list, id)
if not before or string.match(before, '^%S+') ~= kind then
  return { 'NO' }
end
local version = next_version(list)
write_line(id, string.format('lifted %s %d 0 %s', version, now(), kind))
redis.call('HSET', list, 'version', version)
announce_version(leases, version)
return { 'OK' }
