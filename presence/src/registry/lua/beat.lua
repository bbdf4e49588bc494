#!lua flags=allow-oom
-- BEAT: heartbeat, failure-detector sample and end-to-end probe in one write. O(gateways + nicks to stamp).
-- KEYS: 1 generation, 2 leases, 3 beats, 4 gateways, 5 gateway-nicks, 6 owned-nicks, 7 mailbox (5-7 of the caller)
-- ARGV: 1 base, 2 incarnation, 3.. keys of nicks to stamp as active now
-- Reply: {'OK', counter, {lease row..}, {command JSON..}} or {'FENCED'}
-- Called by Registry::beat, once a second from every gateway.
local _, _, beats, gateways, nicks, owned, mailbox = unpack(KEYS)
local incarnation = ARGV[2]

enter_generation()
if not serves(incarnation) then
  return { 'FENCED' }
end
local counter = redis.call('HINCRBY', beats, incarnation, 1)

-- The listing cache is only as good as its count; the index beside it has no TTL and is the truth.
if redis.call('SCARD', nicks) ~= redis.call('SCARD', owned) then
  redis.call('SUNIONSTORE', nicks, owned)
end
redis.call('EXPIRE', nicks, 900)

local time = now()
redis.call('HSET', base .. 'beaten', incarnation, time)
for i = 3, #ARGV do
  local record = base .. 'nick:' .. ARGV[i]
  local owner = redis.call('HGET', record, 'owner')
  if owner and incarnation_of(owner) == incarnation then
    redis.call('HSET', record, 'last_active', time)
  end
end

local commands = redis.call('LRANGE', mailbox, 0, -1)
redis.call('DEL', mailbox)
redis.call('PUBLISH', base .. 'ch:gw:' .. incarnation, 'E ' .. counter)
return { 'OK', counter, lease_table(beats, gateways), commands }
