#!lua flags=allow-oom
-- RESTORE_SANCTIONS: writes again what the store lost of the list of sanctions. A newer line of an id stays.
-- KEYS: 1 generation, 2 leases, 3 sanctions, 4 sanction-order, 5 sanction-ends, 6 sanctions-lifted
-- ARGV: 1 base, 2 version of the list after this last batch, or '' before it, 3.. pairs of id and line
-- Reply: {'OK'}
-- Called by Registry::restore_sanctions.
local list = KEYS[3]

enter_generation()
for i = 3, #ARGV, 2 do
  local known = redis.call('HGET', list, ARGV[i])
  local version = tonumber(string.match(ARGV[i + 1], '^%S+ (%d+) '))
  if not known or tonumber(string.match(known, '^%S+ (%d+) ')) < version then
    write_line(ARGV[i], ARGV[i + 1])
  end
end
if ARGV[2] ~= '' and (tonumber(redis.call('HGET', list, 'version')) or 0) < tonumber(ARGV[2]) then
  redis.call('HSET', list, 'version', ARGV[2])
end
return { 'OK' }
