#!lua flags=allow-oom
-- SANCTION: puts an order in force in the whole cluster, in place of an earlier one of its kind and subject. Also while
-- Redis is full: the list is bounded.
-- KEYS: 1 generation, 2 leases, 3 sanctions, 4 sanction-order, 5 sanction-ends, 6 sanctions-lifted
-- ARGV: 1 base, 2 id, 3 kind, 4 milliseconds until its end or '', 5 order as JSON, 6 maximum number of its kind,
--       7 idempotency key or ''
-- Reply: {'OK', line} or {'FULL'}
-- Called by Registry::sanction.
local _, leases, list, order, ends = unpack(KEYS)
local _, id, kind, lasts, json, maximum, key = unpack(ARGV)

enter_generation()
require_open()
forget_ended(list, order, ends)
local before = redis.call('HGET', list, id)
-- A key says that an order is a repeat; another order with the same key, such as one of another application, is not.
if before and key ~= '' and string.match(before, '^%S+ %d+ %d+ %d+ (.*)$') == json then
  return { 'OK', before }
end
local is_new = not before or string.match(before, '^%S+') == 'lifted'
if is_new and (tonumber(redis.call('HGET', list, 'count:' .. kind)) or 0) >= tonumber(maximum) then
  return { 'FULL' }
end
local version = next_version(list)
local until_ms = lasts == '' and 0 or now() + lasts
local line = string.format('%s %s %d %d ', kind, version, now(), until_ms) .. json
write_line(id, line)
redis.call('HSET', list, 'version', version)
announce_version(leases, version)
return { 'OK', line }
