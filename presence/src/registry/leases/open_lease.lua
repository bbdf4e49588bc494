#!lua
-- OPEN_LEASE: adds a new incarnation to the lease table.
-- KEYS: 1 generation, 2 leases, 3 beats, 4 gateways, 5 fence, 6 asserted
-- ARGV: 1 base, 2 incarnation, 3 JSON of the gateway's info, 4 its node id if no other incarnation of it may serve,
--       else '', 5.. incarnations of the node that are known to have ended
-- Reply: {'OK'}, also for one that serves already; {'FENCED'} for one that has ended; {'NODE_IN_USE', incarnation} if
--        another incarnation of the node serves
-- Called by Registry::open_lease and open_first_lease.
local _, leases, beats, gateways, fence, asserted = unpack(KEYS)
local _, incarnation, info, node = unpack(ARGV)

enter_generation()
if redis.call('HEXISTS', leases, incarnation) == 1 then
  return { serves(incarnation) and 'OK' or 'FENCED' }
end
if node ~= '' then
  local ended = {}
  for i = 5, #ARGV do
    ended[ARGV[i]] = true
  end
  for _, row in ipairs(lease_table(beats, gateways)) do
    local is_ours, gateway = pcall(cjson.decode, string.match(row[4], '^%d+ (.*)$'))
    if serves(row[1]) and not ended[row[1]] and is_ours and gateway.node == node then
      return { 'NODE_IN_USE', row[1] }
    end
  end
end
-- A new store has nothing to recover. If it has lost all leases instead, the beats of their gateways show it.
if redis.call('EXISTS', leases) == 0 then
  redis.call('HSET', KEYS[1], 'phase', 'open')
end
redis.call('SETNX', fence, 0)
redis.call('SADD', asserted, incarnation)
redis.call('HSET', leases, incarnation, 'live')
redis.call('HSET', beats, incarnation, 0)
redis.call('HSET', gateways, incarnation, string.format('%d %s', now(), info))
return { 'OK' }
