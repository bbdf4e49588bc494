#!lua flags=allow-oom
-- LEAVE: ends a membership, if the caller holds it. Asks for no lease, since it only takes from the caller.
-- KEYS: 1 generation, 2 leases, 3 members
-- ARGV: 1 base, 2 owner token, 3 room key, 4 nick key, 5 reason
-- Reply: {'OK'} when this call did it, {'NO'} when somebody else or nobody holds it
-- Called by Registry::leave.
local _, _, members = unpack(KEYS)
local _, token, room, nick, reason = unpack(ARGV)

enter_generation()
local record = redis.call('HGET', members, nick)
if not record or split_record(record) ~= token then
  return { 'NO' }
end
drop_member(room, nick, record)
announce(room, '{"left":[' .. log_leave(room, shown_nick(record, nick), reason) .. ']}')
return { 'OK' }
