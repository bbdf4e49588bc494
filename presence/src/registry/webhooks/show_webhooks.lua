#!lua flags=no-writes
-- SHOW WEBHOOKS: reads the state of all webhooks that have a cursor.
-- KEYS: 1 generation, 2 leases, 3 webhook-lead, 4 webhook-log, 5 webhook-cursors, 6 webhook-states
-- ARGV: 1 base
-- Reply: {'OK', the leading process or '', number of all events so far, {webhook, cursor, number of dead letters, JSON
--        about its deliveries or ''}..}
-- Called by RedisRegistry::show_webhooks.
local _, _, lead, state, cursors, states = unpack(KEYS)
local reply = { 'OK', redis.call('GET', lead) or '', redis.call('HGET', state, 'count') or 0 }
local known = redis.call('HGETALL', cursors)
for place = 1, #known, 2 do
  local dead = redis.pcall('XINFO', 'STREAM', base .. 'webhook-dead:' .. known[place])
  local length = type(dead) == 'table' and dead[1] == 'length' and dead[2] or 0
  reply[#reply + 1] = { known[place], known[place + 1], length, redis.call('HGET', states, known[place]) or '' }
end
return reply
