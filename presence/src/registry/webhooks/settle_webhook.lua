#!lua flags=allow-oom
-- SETTLE WEBHOOK: moves the cursor of a webhook after its receiver has accepted events, or has refused them for too
-- long.
-- KEYS: 1 generation, 2 leases, 3 webhook-lead, 4 webhook-cursors, 5 webhook-states, 6 webhook-dead (of the webhook)
-- ARGV: 1 base, 2 process, 3 webhook, 4 its cursor, 5 its new cursor, 6 JSON about its deliveries, 7 maximum number of
--       dead letters, then for each dead letter: original number, kind, time, at, data
-- Reply: {'OK'}, {'NO'} if another process leads, or the cursor is another one
-- Called by RedisRegistry::settle_webhook. A process that lost the lead while it waited for a receiver changes nothing.
local _, _, lead, cursors, states, dead = unpack(KEYS)
local process, webhook, cursor, moved, about = unpack(ARGV, 2, 6)

enter_generation()
local is_leader = redis.call('GET', lead) == process
if not is_leader or redis.call('HGET', cursors, webhook) ~= cursor then
  return { 'NO' }
end
redis.call('HSET', cursors, webhook, moved)
redis.call('HSET', states, webhook, about)
for place = 8, #ARGV, 5 do
  local original, kind, time, at, data = unpack(ARGV, place, place + 4)
  redis.call('XADD', dead, 'MAXLEN', '~', ARGV[7], '*', 'original', original, 'kind', kind, 'time', time, 'at', at, 'data',
    data)
end
return { 'OK' }
