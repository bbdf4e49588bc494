#!lua flags=allow-oom
-- RESIGN WEBHOOKS: ends the lead of a process that stops, so that another one need not wait for its TTL.
-- KEYS: 1 generation, 2 leases, 3 webhook-lead
-- ARGV: 1 base, 2 process
-- Reply: {'OK'}, {'NO'} if another process leads, or none
-- Called by RedisRegistry::resign_webhooks.
enter_generation()
if redis.call('GET', KEYS[3]) ~= ARGV[2] then
  return { 'NO' }
end
redis.call('DEL', KEYS[3])
return { 'OK' }
