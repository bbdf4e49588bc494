#!lua flags=allow-oom
-- FORGET WEBHOOKS: logs no more events once no process has led for a time, because no process has webhooks.
-- KEYS: 1 generation, 2 leases, 3 webhook-lead, 4 webhook-log
-- ARGV: 1 base, 2 milliseconds without a lead
-- Reply: {'OK'}, {'NO'} if nothing was to forget
-- Called by RedisRegistry::forget_webhooks, from processes without webhooks.
enter_generation()
local is_stated = redis.call('HEXISTS', KEYS[1], 'webhooks') == 1
local led = tonumber(redis.call('HGET', KEYS[4], 'led')) or 0
if not is_stated or redis.call('EXISTS', KEYS[3]) == 1 or now() - led < tonumber(ARGV[2]) then
  return { 'NO' }
end
redis.call('HDEL', KEYS[1], 'webhooks')
return { 'OK' }
