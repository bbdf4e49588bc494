#!lua flags=allow-oom
-- EXPIRE_DETACHED: a detached session was not resumed in time, so it goes offline; its nick is held for it until the
-- hold ends. Nothing is held for one that an order has ended.
-- KEYS: 1 generation, 2 leases, 3 nick record
-- ARGV: 1 base, 2 owner token, 3 nick key, 4 reason
-- Reply: {'OK'} if this call ended it; {'NO'} if the caller does not own the nick, or is not detached; or the error
--        RECOVERING: the session may have moved just before the store lost data
-- Called by Registry::expire_detached.
local record = KEYS[3]
local _, token, nick, reason = unpack(ARGV)

enter_generation()
if redis.call('HGET', record, 'owner') ~= token or redis.call('HEXISTS', record, 'detached') == 0 then
  if is_final(reason) then
    pursue(session_of(token))
  end
  return { 'NO' }
end
require_open()
local ends = is_final(reason)
log_offline(free_nick(nick, token, not ends and 'held'), reason)
if ends then
  revoke_tokens(session_of(token))
end
return { 'OK' }
