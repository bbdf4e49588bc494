#!lua
-- SET_RULES: writes the rules of a room in place of those of the configuration. Creates the room if there is none; it
-- then stays without members until it is ended.
-- KEYS: 1 generation, 2 leases, 3 room meta, 4 room stream
-- ARGV: 1 base, 2 room as typed, 3 JSON of the rules, 4 an unused epoch, 5 '1' if a publish has to read the rules, else
--       '0'
-- Reply: {'OK', room as shown, 1 if this call created it, else 0}
-- Called by Registry::set_room_rules.
local _, _, meta, log = unpack(KEYS)
local _, display, rules, epoch, concern_messages = unpack(ARGV)

enter_generation()
require_open()
local _, _, _, _, _, shown = touch(meta, log, generation_number, epoch)
redis.call('HSET', meta, 'display', shown or display, 'rules', rules, 'keep', '1')
if concern_messages == '1' then
  redis.call('HSET', meta, 'guard', '1')
end
redis.call('PERSIST', meta)
return { 'OK', shown or display, shown and 0 or 1 }
