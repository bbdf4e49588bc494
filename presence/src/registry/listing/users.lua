#!lua flags=no-writes
-- USERS: reads rows of users for the API. O(nicks given and their rooms).
-- KEYS: 1 generation, 2 leases
-- ARGV: 1 base, 2.. nick keys
-- Reply: {'OK', row..} of the first nicks, at least one and as many as ROOMS_MAX allows, with {} for an unknown nick,
--        else {nick as shown, 1 if online, status JSON or '', online since or 0, last active, {room as shown..}}
-- Called by Registry::user, lookup and users.

-- Rooms that are read before the call ends early, which bounds its duration.
local ROOMS_MAX = 400

local rows, rooms_read = { 'OK' }, 0
for i = 2, #ARGV do
  if rooms_read >= ROOMS_MAX then
    break
  end
  local nick = ARGV[i]
  local record = redis.call('HMGET', base .. 'nick:' .. nick, 'owner', 'display', 'status', 'since', 'last_active')
  local owner, display, status, since, last_active = unpack(record)
  if not display then
    rows[i] = {}
  elseif not owner or (redis.call('HGET', KEYS[2], incarnation_of(owner)) or 'fenced') == 'fenced' then
    rows[i] = { display, 0, '', '0', last_active, {} }
  else
    -- Sessions held by a drained gateway are online as before. The set may name rooms of a dead owner that is not
    -- reaped yet.
    local keys, rooms = redis.call('SMEMBERS', base .. 'nick-rooms:' .. nick), {}
    table.sort(keys)
    rooms_read = rooms_read + #keys
    for _, room in ipairs(keys) do
      local member = redis.call('HGET', base .. 'members:' .. room, nick)
      if member and split_record(member) == owner then
        rooms[#rooms + 1] = redis.call('HGET', base .. 'room:' .. room, 'display') or room
      end
    end
    rows[i] = { display, 1, status or '', since, last_active, rooms }
  end
end
return rows
