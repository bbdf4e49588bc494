#!lua flags=allow-oom
-- BEAT: heartbeat, failure-detector sample and end-to-end probe in one write. O(gateways + nicks to stamp).
-- KEYS: 1 generation, 2 leases, 3 beats, 4 gateways, 5 ended, 6 usage, 7 mailbox (of the caller), 8 sanctions
-- ARGV: 1 base, 2 incarnation, 3 usage of limits to report or '', 4 id of the newest usage that the caller has, or '',
--       5 counter of the caller's last answered beat and 6 number of its orders, which are carried out; or '' and ''
--       for a caller that is handed each order once, 7.. keys of nicks to stamp as active now
-- Reply: {'OK', generation, phase, 1 if the caller has reasserted its claims, counter, {lease row..}, {order JSON..},
--        {{id, incarnation, usage}..} of all gateways since then, version of the list of sanctions} or {'FENCED'}
-- Called by Registry::send_beat, once a second from every gateway.
local USAGE_MS, USAGE_ROWS = 10000, 512
local _, leases, beats, gateways, ended, usage, mailbox = unpack(KEYS)
local incarnation, used, usage_seen, answered, done = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]

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
for i = 7, #ARGV do
  local record = base .. 'nick:' .. ARGV[i]
  local owner = redis.call('HGET', record, 'owner')
  if owner and incarnation_of(owner) == incarnation then
    redis.call('HSET', record, 'last_active', time)
  end
end

-- An order stays until its answer has arrived. If a beat came between, its answer was lost, and it has removed them.
if done ~= '' and done ~= '0' and counter == tonumber(answered) + 1 then
  redis.call('LTRIM', mailbox, done, -1)
end
local commands = redis.call('LRANGE', mailbox, 0, -1)
if done == '' then
  redis.call('DEL', mailbox)
end
redis.call('PUBLISH', base .. 'ch:gw:' .. incarnation, 'E ' .. counter)

-- Without an id: what is not older than two beats.
local since = usage_seen ~= '' and '(' .. usage_seen or string.format('%.0f', time - 2000)
if used ~= '' then
  redis.call('XADD', usage, 'MINID', string.format('%.0f', time - USAGE_MS), '*', incarnation, used)
  redis.call('EXPIRE', usage, 60)
end
local reports = {}
for _, entry in ipairs(redis.call('XRANGE', usage, since, '+', 'COUNT', USAGE_ROWS)) do
  reports[#reports + 1] = { entry[1], entry[2][1], entry[2][2] }
end

local number, phase = generation()
return { 'OK', number, phase, has_asserted(incarnation) and 1 or 0, counter, lease_table(beats, gateways), commands,
  reports, redis.call('HGET', KEYS[8], 'version') or '0' }
