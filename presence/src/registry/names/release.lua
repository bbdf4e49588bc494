#!lua flags=allow-oom
-- RELEASE: gives a nick back, if the caller owns it. Asks for no lease, since it only takes from the caller.
-- KEYS: 1 generation, 2 leases, 3 nick record
-- ARGV: 1 base, 2 owner token, 3 nick key, 4 nick as shown, 5 key and 6 spelling of the nick that is used instead, or ''
-- Reply: {'OK'} when this call did it, {'NO'} when somebody else or nobody owns it
-- Called by Registry::release.
local _, _, record = unpack(KEYS)
local _, token, nick, display, new_nick, new_display = unpack(ARGV)

enter_generation()
if redis.call('HGET', record, 'owner') ~= token then
  return { 'NO' }
end
-- Another spelling of the same nick is still the same claim.
if new_nick ~= nick then
  free_nick(nick, token)
end
if new_nick == '' then
  log_offline(nick, 'closed')
else
  log_event('rename', '"from":%s,"to":%s', cjson.encode(display), cjson.encode(new_display), now())
end
return { 'OK' }
