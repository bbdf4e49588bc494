#!lua flags=no-writes
-- TAKE WEBHOOK EVENTS: reads the events after the cursor of a webhook, for the process that leads.
-- KEYS: 1 generation, 2 leases, 3 webhook-lead, 4 webhook-log, 5 webhook-events, 6 webhook-cursors
-- ARGV: 1 base, 2 process, 3 webhook, 4 maximum number of events, 5 their maximum number of bytes, except for the first
-- Reply: {'OK', 0} if another process leads, or none; else {'OK', 1, cursor, number of all events so far, time,
--        {number, kind, time, at, data, original number, time of the replay, webhook}..}. The last three are '' except
--        for a replayed event
-- Called by RedisRegistry::take_webhook_events.
local _, _, lead, state, events, cursors = unpack(KEYS)
local process, webhook, bytes_max = ARGV[2], ARGV[3], tonumber(ARGV[5])

local cursor = redis.call('HGET', cursors, webhook)
if redis.call('GET', lead) ~= process or not cursor then
  return { 'OK', 0 }
end
local reply = { 'OK', 1, cursor, redis.call('HGET', state, 'count') or 0, string.format('%d', now()) }
local bytes = 0
for place, entry in ipairs(redis.call('XRANGE', events, '(' .. cursor, '+', 'COUNT', ARGV[4])) do
  local fields = {}
  for at = 1, #entry[2], 2 do
    fields[entry[2][at]] = entry[2][at + 1]
  end
  bytes = bytes + #(fields.data or '')
  if bytes > bytes_max and place > 1 then
    break
  end
  reply[#reply + 1] = { string.match(entry[1], '^%d+'), fields.kind or '', fields.time or '0', fields.at or '',
    fields.data or '', fields.original or '', fields.logged or '', fields.only or '' }
end
return reply
