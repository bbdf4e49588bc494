#!lua flags=no-writes
-- SANCTIONS: reads a page of the changes of the list of sanctions after a version, in their order.
-- KEYS: 1 generation, 2 leases, 3 sanctions, 4 sanction-order
-- ARGV: 1 base, 2 version up to which the caller has read, 3 maximum number of changes, 4 version up to which it needs
--       no change that is forgotten
-- Reply: {'OK', version of the list, 1 if later changes may have been forgotten: the page is then the first one of the
--        whole list, 1 if there are more, {{id, line}..}}
-- Called by Registry::sanctions_since.
local list, order = KEYS[3], KEYS[4]
local known, limit, as_of = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])

local version, floor = unpack(redis.call('HMGET', list, 'version', 'floor'))
local is_forgotten = as_of < (tonumber(floor) or 0)
local ids = redis.call('ZRANGEBYSCORE', order, '(' .. (is_forgotten and '0' or known), '+inf', 'LIMIT', 0, limit + 1)
local rows = {}
for i = 1, math.min(#ids, limit) do
  rows[i] = { ids[i], redis.call('HGET', list, ids[i]) or '' }
end
return { 'OK', version or '0', is_forgotten and 1 or 0, #ids > limit and 1 or 0, rows }
