#!lua
-- REPLAY WEBHOOK: appends dead letters of a webhook to the log again, for that webhook only.
-- KEYS: 1 generation, 2 leases, 3 webhook-dead (of the webhook)
-- ARGV: 1 base, 2 webhook, 3 maximum number of dead letters
-- Reply: {'OK', number of replayed events}; 0 also while nothing is logged, because no process has webhooks
-- Called by RedisRegistry::replay_webhook. They count for the bounds of the log, which may cut them like all entries.
local dead = KEYS[3]

enter_generation()
local replayed = 0
for _, entry in ipairs(wanted_events and redis.call('XRANGE', dead, '-', '+', 'COUNT', ARGV[3]) or {}) do
  local fields = {}
  for at = 1, #entry[2], 2 do
    fields[entry[2][at]] = entry[2][at + 1]
  end
  local is_logged = log_for_webhooks(wanted_events, fields.kind or '', fields.time or '0', fields.at or '',
    fields.data or '', 'original', fields.original or '', 'only', ARGV[2], 'logged', string.format('%d', now()))
  if not is_logged then
    break
  end
  redis.call('XDEL', dead, entry[1])
  replayed = replayed + 1
end
return { 'OK', replayed }
