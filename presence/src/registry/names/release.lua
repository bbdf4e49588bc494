#!lua flags=allow-oom
-- RELEASE: frees a nick if the caller owns it. Needs no live lease, since it only removes the caller's own claim.
-- KEYS: 1 generation, 2 leases, 3 nick record
-- ARGV: 1 base, 2 owner token, 3 nick key, 4 nick as shown, 5 key and 6 spelling of the nick that replaces it, or ''
-- Reply: {'OK'} if this call freed it, {'NO'} if the caller does not own it
-- Called by Registry::release.
local _, _, record = unpack(KEYS)
local _, token, nick, display, new_nick, new_display = unpack(ARGV)

enter_generation()
if redis.call('HGET', record, 'owner') ~= token then
  return { 'NO' }
end
-- Another spelling of the same nick is still the same claim.
local shown, bound
if new_nick ~= nick then
  shown, bound = free_nick(nick, token)
end
if new_nick == '' then
  log_offline(shown, 'closed')
else
  -- A user that has chosen another nick keeps no claim to this one.
  if bound then
    unbind(nick, bound)
  end
  log_event('rename', '"from":%s,"to":%s', cjson.encode(display), cjson.encode(new_display), now())
end
return { 'OK' }
