#!lua flags=allow-oom
-- DETACH: a session lost its connection; its nick is held from now on. Nothing is announced. A nick that the session
-- has only just claimed is not held.
-- KEYS: 1 generation, 2 leases, 3 nick record
-- ARGV: 1 base, 2 owner token, 3 milliseconds of hold, 4 milliseconds of ownership before a nick is held
-- Reply: {'OK'}, a repeated call changes nothing; {'NEW'} if the nick is owned for less than ARGV 4, and nothing is
--        changed; {'NO'} if the caller does not own the nick
-- Called by Registry::detach.
local record, token = KEYS[3], ARGV[2]

enter_generation()
if redis.call('HGET', record, 'owner') ~= token then
  return { 'NO' }
end
if redis.call('HEXISTS', record, 'detached') == 0 then
  local time = now()
  local since = redis.call('HGET', record, 'since')
  if since and time - since < tonumber(ARGV[4]) then
    return { 'NEW' }
  end
  redis.call('HSET', record, 'detached', time, 'held_until', time + ARGV[3])
end
return { 'OK' }
