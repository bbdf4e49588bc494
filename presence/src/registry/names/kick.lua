#!lua flags=allow-oom
-- KICK: orders the gateway of a nick's owner to end that session, at once over its channel, and by its mailbox in case
-- the channel message is lost. A session that was renamed is found by its former nick.
-- KEYS: 1 generation, 2 leases
-- ARGV: 1 base, 2 nick key
-- Reply: {'OK'} if the nick had an owner, else {'NO'}
-- Called by Registry::kick.
enter_generation()
local owner = redis.call('HGET', base .. 'nick:' .. present_nick(ARGV[2]), 'owner')
local incarnation = owner and incarnation_of(owner)
if not owner or not serves(incarnation) then
  return { 'NO' }
end
local session = session_of(owner)
redis.call('RPUSH', base .. 'mailbox:' .. incarnation, '{"kick":"' .. session .. '"}')
redis.call('PUBLISH', base .. 'ch:gw:' .. incarnation, 'K ' .. session)
return { 'OK' }
