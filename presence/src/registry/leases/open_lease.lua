#!lua
-- Enters a new incarnation into the lease table; the only script that creates a row.
-- KEYS: 1 generation, 2 leases, 3 beats, 4 gateways, 5 fence, 6 asserted
-- ARGV: 1 base, 2 incarnation, 3 JSON of what the gateway tells about itself, 4 its node id if it is to be the only one of
--       it, else '', 5.. incarnations of the node that are known to be over
-- Reply: {'OK'}, also for one that serves already; {'FENCED'} for one that has ended; {'TWIN', incarnation} when another one
--        of the node serves
-- Called by Registry::open_lease and open_first_lease.
local _, leases, beats, gateways, fence, asserted = unpack(KEYS)
local _, incarnation, info, node = unpack(ARGV)

enter_generation()
if redis.call('HEXISTS', leases, incarnation) == 1 then
  return { serves(incarnation) and 'OK' or 'FENCED' }
end
if node ~= '' then
  local over = {}
  for i = 5, #ARGV do
    over[ARGV[i]] = true
  end
  for _, row in ipairs(lease_table(beats, gateways)) do
    local is_ours, gateway = pcall(cjson.decode, string.match(row[4], '^%d+ (.*)$'))
    if serves(row[1]) and not over[row[1]] and is_ours and gateway.node == node then
      return { 'TWIN', row[1] }
    end
  end
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
