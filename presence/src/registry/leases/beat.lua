#!lua flags=allow-oom
-- BEAT: heartbeat, failure-detector sample and end-to-end probe in one write. O(gateways + nicks to stamp).
-- KEYS: 1 generation, 2 leases, 3 beats, 4 gateways, 5 ended, 6 mailbox (of the caller)
-- ARGV: 1 base, 2 incarnation, 3.. keys of nicks to stamp as active now
-- Reply: {'OK', generation, phase, 1 if the caller has reasserted its claims, counter, {lease row..}, {order JSON..}}
--        or {'FENCED'}
-- Called by Registry::beat, once a second from every gateway.
local _, leases, beats, gateways, ended, mailbox = unpack(KEYS)
local incarnation = ARGV[2]

enter_generation()
if redis.call('HEXISTS', leases, incarnation) == 0 then
  -- A gateway that beats had a lease. If this generation is young and lacks it, its start missed the loss of this row.
  -- In an older generation the row existed, ended, and was deleted.
  if redis.call('HGET', KEYS[1], 'phase') == 'open' then
    if now() - redis.call('HGET', KEYS[1], 'since') > RECOVERY_MS_MAX then
      return { 'FENCED' }
    end
    begin_generation()
  end
  redis.call('SREM', base .. 'asserted', incarnation)
elseif not serves(incarnation) then
  return { 'FENCED' }
end
open_if_recovered(ended)
local counter = redis.call('HINCRBY', beats, incarnation, 1)

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
local number, phase = generation()
return { 'OK', number, phase, has_asserted(incarnation) and 1 or 0, counter, lease_table(beats, gateways), commands }
