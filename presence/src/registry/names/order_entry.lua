#!lua
-- ORDER ENTRY: orders the gateway of a nick's owner to let that session enter a room, at once over its channel, and by
-- its mailbox in case the channel message is lost. A session that was renamed is found by its former nick.
-- KEYS: 1 generation, 2 leases
-- ARGV: 1 base, 2 nick key, 3 the other fields of the order as JSON
-- Reply: {'OK'} if the nick has an owner that is connected, else {'NO'}
-- Called by Registry::order_entry.
enter_generation()
require_open()
local record = base .. 'nick:' .. present_nick(ARGV[2])
local owner, detached = unpack(redis.call('HMGET', record, 'owner', 'detached'))
local incarnation = owner and incarnation_of(owner)
if not owner or detached or not serves(incarnation) then
  return { 'NO' }
end
local session = session_of(owner)
local order = '{"session":"' .. session .. '",' .. ARGV[3] .. '}'
redis.call('RPUSH', base .. 'mailbox:' .. incarnation, '{"enter":' .. order .. '}')
redis.call('PUBLISH', base .. 'ch:gw:' .. incarnation, 'J ' .. session .. ' ' .. #order .. '\n' .. order)
return { 'OK' }
