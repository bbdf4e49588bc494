#!lua flags=allow-oom
-- DETACH: a session has lost its connection, and its nick is held for it from now on. Nobody is told.
-- KEYS: 1 generation, 2 leases, 3 nick record
-- ARGV: 1 base, 2 owner token, 3 milliseconds to hold it
-- Reply: {'OK'}, again without a change; {'NO'} when somebody else or nobody owns it
-- Called by Registry::detach.
local record, token = KEYS[3], ARGV[2]

enter_generation()
if redis.call('HGET', record, 'owner') ~= token then
  return { 'NO' }
end
if redis.call('HEXISTS', record, 'detached') == 0 then
  local time = now()
  redis.call('HSET', record, 'detached', time, 'held_until', time + ARGV[3])
end
return { 'OK' }
