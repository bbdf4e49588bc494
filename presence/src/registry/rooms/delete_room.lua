#!lua flags=allow-oom
-- DELETE_ROOM: removes the members of a room, and with the last of them the room itself: its messages, rules, roles,
-- bans and invites. Removes at most BATCH members; the caller repeats the call until no member is left.
-- KEYS: 1 generation, 2 leases, 3 room meta, 4 room stream, 5 members, 6 member-list
-- ARGV: 1 base, 2 room key
-- Reply: {'OK', 1 if members may be left, else 0}; {'NO'} if there is no such room
-- Called by Registry::end_room.
local _, _, meta, log, members, member_list = unpack(KEYS)
local _, room = unpack(ARGV)

-- Maximum number of members that one call removes.
local BATCH = 256

enter_generation()
require_open()
if redis.call('EXISTS', meta, members) == 0 then
  return { 'NO' }
end
local nicks = redis.call('ZRANGEBYSCORE', member_list, '-inf', '+inf', 'LIMIT', 0, BATCH)
local left, records = {}, {}
for _, nick in ipairs(nicks) do
  local record = redis.call('HGET', members, nick)
  if record then
    drop_member(room, nick, record)
    left[#left + 1] = log_leave(room, shown_nick(record, nick), 'kicked')
    records[#records + 1] = record
  else
    redis.call('ZREM', member_list, nick)
  end
end
if #left > 0 then
  announce(room, '{"left":[' .. table.concat(left, ',') .. ']}')
end
for _, record in ipairs(records) do
  order_removal(room, record, 'kicked', '')
end
if #nicks == BATCH then
  return { 'OK', 1 }
end
redis.call('DEL', meta, log, members, member_list, meta .. ':roles', meta .. ':bans', meta .. ':invites', meta .. ':slow')
redis.call('ZREM', base .. 'largest', '#' .. room)
return { 'OK', 0 }
