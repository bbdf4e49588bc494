#!lua flags=allow-oom
-- DETACH: a session lost its connection; its nick is held from now on. Nothing is announced.
-- KEYS: 1 generation, 2 leases, 3 nick record
-- ARGV: 1 base, 2 owner token, 3 milliseconds of hold
-- Reply: {'OK'}, a repeated call changes nothing; {'NO'} if the caller does not own the nick
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
