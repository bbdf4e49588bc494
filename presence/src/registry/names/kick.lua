#!lua flags=allow-oom
-- KICK: orders the gateway of a nick's owner to end that session, which no token resumes any more: its gateway may have
-- died. A session that was renamed is found by its former nick.
-- KEYS: 1 generation, 2 leases
-- ARGV: 1 base, 2 nick key
-- Reply: {'OK'} if the nick had an owner, else {'NO'}
-- Called by Registry::kick.
enter_generation()
local owner = redis.call('HGET', base .. 'nick:' .. present_nick(ARGV[2]), 'owner')
if not owner then
  return { 'NO' }
end
order_kick(owner)
revoke_tokens(session_of(owner))
return { 'OK' }
