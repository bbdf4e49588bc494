#!lua
-- ANNOUNCE: sends an announcement to every gateway that serves, at once over its channel, and by its mailbox in case
-- the channel message is lost. O(gateways).
-- KEYS: 1 generation, 2 leases, 3 announced (of the idempotency key, or of the id)
-- ARGV: 1 base, 2 id, 3 its other fields as JSON, with a comma behind each, 4 seconds for which the key is remembered,
--       5 maximum number of orders in a mailbox
-- Reply: {'OK', id of the first announcement with this key, its time} or {'FULL'} if a mailbox has no space
-- Called by Registry::announce.
local _, leases, announced = unpack(KEYS)
local _, id, fields, seconds, maximum = unpack(ARGV)

enter_generation()
require_open()
local known = redis.call('GET', announced)
if known then
  return { 'OK', string.match(known, '^(%S+) (%d+)$') }
end
local rows, serving = redis.call('HGETALL', leases), {}
for i = 1, #rows, 2 do
  if rows[i + 1] == 'live' or rows[i + 1] == 'draining' then
    if redis.call('LRANGE', base .. 'mailbox:' .. rows[i], maximum - 1, maximum - 1)[1] then
      return { 'FULL' }
    end
    serving[#serving + 1] = rows[i]
  end
end
local time = string.format('%d', now())
local json = '{"id":"' .. id .. '",' .. fields .. '"time":' .. time .. '}'
redis.call('SET', announced, id .. ' ' .. time, 'EX', seconds)
for _, incarnation in ipairs(serving) do
  redis.call('RPUSH', base .. 'mailbox:' .. incarnation, '{"announce":' .. json .. '}')
  redis.call('PUBLISH', base .. 'ch:gw:' .. incarnation, 'A ' .. #json .. '\n' .. json)
end
return { 'OK', id, time }
