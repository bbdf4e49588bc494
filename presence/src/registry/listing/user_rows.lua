-- The rows of users for the API. Shared by USERS and ONLINE. Needs the prelude.

-- Rooms that are read before a call ends early, which bounds its duration.
local ROOMS_MAX = 400
local rooms_read = 0

-- Returns {} for an unknown nick, else {nick as shown, owner token or '' if offline, status JSON or '', online since or
-- 0, last active, {room as shown..}, user or ''}.
local function user_row(nick)
  local record = redis.call('HMGET', base .. 'nick:' .. nick, 'owner', 'display', 'status', 'since', 'last_active',
    'user')
  local owner, display, status, since, last_active, user = unpack(record)
  if not display then
    return {}
  end
  if not owner or (redis.call('HGET', KEYS[2], incarnation_of(owner)) or 'fenced') == 'fenced' then
    return { display, '', '', '0', last_active, {}, user or '' }
  end
  -- Sessions held by a drained gateway are online as before. The set may name rooms of a dead owner that is not reaped
  -- yet.
  local keys, rooms = redis.call('SMEMBERS', base .. 'nick-rooms:' .. nick), {}
  table.sort(keys)
  rooms_read = rooms_read + #keys
  for _, room in ipairs(keys) do
    local member = redis.call('HGET', base .. 'members:' .. room, nick)
    if member and split_record(member) == owner then
      rooms[#rooms + 1] = redis.call('HGET', base .. 'room:' .. room, 'display') or room
    end
  end
  return { display, owner, status or '', since, last_active, rooms, user or '' }
end
