#!lua flags=allow-oom
-- RELEASE: frees a nick if the caller owns it. Needs no live lease, since it only removes the caller's own claim.
-- KEYS: 1 generation, 2 leases, 3 nick record
-- ARGV: 1 base, 2 owner token, 3 nick key, 4 nick as shown, 5 the reason of `offline`, 6 key and 7 spelling of the nick
--       that replaces it, or ''
-- Reply: {'OK'} if this call freed it, {'NO'} if the caller does not own it
-- Called by Registry::release.
local _, _, record = unpack(KEYS)
local _, token, nick, display, reason, new_nick, new_display = unpack(ARGV)

enter_generation()
if redis.call('HGET', record, 'owner') ~= token then
  if is_final(reason) then
    pursue(session_of(token))
  end
  return { 'NO' }
end
-- Another spelling of the same nick is still the same claim.
local shown, bound
if new_nick ~= nick then
  shown, bound = free_nick(nick, token)
end
if new_nick == '' then
  log_offline(shown, reason)
  if is_final(reason) then
    revoke_tokens(session_of(token))
  end
else
  -- A user that has chosen another nick keeps no claim to this one.
  if bound then
    unbind(nick, bound)
  end
  log_event('rename', '"from":%s,"to":%s', cjson.encode(display), cjson.encode(new_display), now())
end
return { 'OK' }
