#!lua flags=allow-oom
-- EXPIRE_DETACHED: a detached session was not resumed in time, so it goes offline; its nick is held for it until the
-- hold ends.
-- KEYS: 1 generation, 2 leases, 3 nick record
-- ARGV: 1 base, 2 owner token, 3 nick key, 4 reason
-- Reply: {'OK'} if this call ended it; {'NO'} if the caller does not own the nick, or is not detached; or the error
--        RECOVERING: the session may have moved just before the store lost data
-- Called by Registry::expire_detached.
local record = KEYS[3]
local _, token, nick, reason = unpack(ARGV)

enter_generation()
if redis.call('HGET', record, 'owner') ~= token or redis.call('HEXISTS', record, 'detached') == 0 then
  return { 'NO' }
end
require_open()
log_offline(free_nick(nick, token, 'held'), reason)
return { 'OK' }
