#!lua flags=allow-oom
-- KICK: orders the gateway of a nick's owner to end that session, at once over its channel, and by its mailbox in case
-- the channel message is lost.
-- KEYS: 1 generation, 2 leases, 3 nick record
-- ARGV: 1 base
-- Reply: {'OK'} if the nick had an owner, else {'NO'}
-- Called by Registry::kick.
local _, _, record = unpack(KEYS)

enter_generation()
local owner = redis.call('HGET', record, 'owner')
local incarnation = owner and incarnation_of(owner)
if not owner or not serves(incarnation) then
  return { 'NO' }
end
local session = string.match(owner, '/([^/]+)/')
redis.call('RPUSH', base .. 'mailbox:' .. incarnation, '{"kick":"' .. session .. '"}')
redis.call('PUBLISH', base .. 'ch:gw:' .. incarnation, 'K ' .. session)
return { 'OK' }
