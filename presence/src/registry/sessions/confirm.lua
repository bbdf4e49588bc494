#!lua flags=allow-oom
-- CONFIRM: the client has the token of its last resume, so the former token becomes invalid.
-- KEYS: 1 generation, 2 leases, 3 session
-- ARGV: 1 base, 2 hash of the token
-- Reply: {'OK'} if it is the session's token, else {'NO'}
-- Called by Registry::confirm.
local session_record, token = KEYS[3], ARGV[2]

enter_generation()
if redis.call('HGET', session_record, 'token') ~= token then
  return { 'NO' }
end
redis.call('HDEL', session_record, 'previous', 'was')
return { 'OK' }
