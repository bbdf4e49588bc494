#!lua
-- REPLAY WEBHOOK: appends dead letters of a webhook to the log again, for that webhook only.
-- KEYS: 1 generation, 2 leases, 3 webhook-log, 4 webhook-events, 5 webhook-dead (of the webhook)
-- ARGV: 1 base, 2 webhook, 3 maximum number of dead letters
-- Reply: {'OK', number of replayed events}
-- Called by RedisRegistry::replay_webhook. The log may cut them like all entries.
local _, _, state, events, dead = unpack(KEYS)

enter_generation()
local entries = redis.call('XRANGE', dead, '-', '+', 'COUNT', ARGV[3])
for _, entry in ipairs(entries) do
  local id = string.format('%d-0', redis.call('HINCRBY', state, 'count', 1))
  redis.call('XADD', events, id, 'only', ARGV[2], 'logged', string.format('%d', now()), unpack(entry[2]))
end
local next_entry = #entries > 0 and redis.call('XRANGE', dead, '(' .. entries[#entries][1], '+', 'COUNT', 1)[1]
if next_entry then
  redis.call('XTRIM', dead, 'MINID', next_entry[1])
else
  redis.call('DEL', dead)
end
return { 'OK', #entries }
