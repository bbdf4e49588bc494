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

-- Each dead letter has as `end` the bytes of all letters up to it.
local function field(letter, name)
  for at = 1, letter and #letter[2] or 0, 2 do
    if letter[2][at] == name then
      return letter[2][at + 1]
    end
  end
  return ''
end

local newest = #ARGV > 7 and redis.call('XREVRANGE', dead, '+', '-', 'COUNT', 1)[1]
local bytes = newest and tonumber(field(newest, 'end')) or 0

redis.call('HSET', cursors, webhook, moved)
redis.call('HSET', states, webhook, about)
for place = 8, #ARGV, 5 do
  local original, kind, time, at, data = unpack(ARGV, place, place + 4)
  bytes = bytes + event_bytes(kind, time, at, data)
  redis.call('XADD', dead, 'MAXLEN', '~', ARGV[7], '*', 'original', original, 'kind', kind, 'time', time, 'at', at, 'data',
    data, 'end', string.format('%d', bytes))
end
-- The oldest make space. The newest one always stays.
local stated = string.match(wanted_events or '', '^%d+ (%d+)')
local bytes_max = stated and stated / WEBHOOK_LOG_PARTS or math.huge
while bytes > bytes_max do
  local oldest, next_one = unpack(redis.call('XRANGE', dead, '-', '+', 'COUNT', 2))
  local own = event_bytes(field(oldest, 'kind'), field(oldest, 'time'), field(oldest, 'at'), field(oldest, 'data'))
  if not next_one or bytes - (tonumber(field(oldest, 'end')) or 0) + own <= bytes_max then
    break
  end
  redis.call('XDEL', dead, oldest[1])
end
return { 'OK' }
