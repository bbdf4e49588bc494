#!lua flags=allow-oom
-- LEAVE: ends a membership if the caller's session holds it and was not resumed since. Needs no live lease, since it
-- only removes the caller's own claim.
-- KEYS: 1 generation, 2 leases, 3 members, 4 nick record, 5 session-rooms
-- ARGV: 1 base, 2 owner token, 3 room key, 4 nick key, 5 reason, 6 '1' if the room is not restored by a resume, else
--       '0'
-- Reply: {'OK'} if this call ended it, {'NO'} if the caller does not hold it
-- Called by Registry::leave.
local _, _, members, nick_record, session_rooms = unpack(KEYS)
local _, token, room, nick, reason, for_good = unpack(ARGV)

enter_generation()
local record = redis.call('HGET', members, nick)
local owner = redis.call('HGET', nick_record, 'owner')
if not record or not succeeds(token, split_record(record)) or (owner and owner ~= token and succeeds(owner, token)) then
  return { 'NO' }
end
if for_good == '1' then
  redis.call('SREM', session_rooms, room)
end
drop_member(room, nick, record)
announce(room, '{"left":[' .. log_leave(room, shown_nick(record, nick), reason) .. ']}')
end_room(room)
return { 'OK' }
