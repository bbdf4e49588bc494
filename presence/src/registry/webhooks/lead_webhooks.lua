#!lua flags=allow-oom
-- LEAD WEBHOOKS: takes or renews the lead of the processes that send webhooks, and states the events to be logged.
-- KEYS: 1 generation, 2 leases, 3 webhook-lead, 4 webhook-log, 5 webhook-events, 6 webhook-cursors
-- ARGV: 1 base, 2 process, 3 milliseconds of the lead, 4 the wanted events as in webhook_log.lua, then the webhooks
-- Reply: {'OK'}, {'NO'} if another process leads
-- Called by RedisRegistry::lead_webhooks, about once a second from every process with webhooks. The TTL only decides
-- which process works; each later step of that process compares the lead again.
local _, _, lead, state, events, cursors = unpack(KEYS)
local process, lead_ms, wanted = ARGV[2], ARGV[3], ARGV[4]

enter_generation()
local leader = redis.call('GET', lead)
if leader and leader ~= process then
  return { 'NO' }
end
local newest = redis.call('XREVRANGE', events, '+', '-', 'COUNT', 1)[1]
local last = newest and tonumber(string.match(newest[1], '^%d+')) or 0
local count = tonumber(redis.call('HGET', state, 'count')) or 0

redis.call('SET', lead, process, 'PX', lead_ms)
redis.call('HSET', state, 'led', now())
-- One of the two was lost alone.
if count < last then
  count = last
  redis.call('HSET', state, 'count', string.format('%d', last))
end
if redis.call('HGET', KEYS[1], 'webhooks') ~= wanted then
  -- Other bounds have other marks: the bytes begin again, and the present entries go with the first mark.
  redis.call('DEL', state)
  redis.call('HSET', state, 'count', string.format('%d', count), 'led', now(), 'mark 0', string.format('%d-0', count))
  redis.call('HSET', KEYS[1], 'webhooks', wanted)
end
-- A new webhook begins with the next event. What all of them have is removed.
local slowest = count
for place = 5, #ARGV do
  redis.call('HSETNX', cursors, ARGV[place], string.format('%d', count))
  slowest = math.min(slowest, tonumber(redis.call('HGET', cursors, ARGV[place])) or 0)
end
redis.call('XTRIM', events, 'MINID', string.format('%d-0', slowest + 1))
return { 'OK' }
