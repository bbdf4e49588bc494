-- Ends memberships. Shared by the scripts that join, leave and reap; each compares the owner first. Needs the prelude.
-- The memory twin is in rooms/memory.rs.

-- Deletes a member record and its index entries. The last member removes the room from the listing; `end_room` is to
-- follow the announcement of its leave.
local function drop_member(room, nick, record)
  local members = base .. 'members:' .. room
  redis.call('HDEL', members, nick)
  redis.call('ZREM', base .. 'member-list:' .. room, nick)
  redis.call('SREM', base .. 'nick-rooms:' .. nick, room)
  redis.call('SREM', base .. 'owned-members:' .. incarnation_of(record), room .. ' ' .. nick)
  if redis.call('EXISTS', members) == 0 then
    redis.call('ZREM', base .. 'rooms', room)
  end
end

-- Returns the shown nick of a member record as a JSON string.
local function shown_nick(record, nick)
  local _, info = split_record(record)
  local readable, member = pcall(cjson.decode, info)
  return cjson.encode(readable and member.nick or nick)
end

-- Logs that a member left, and returns the entry for the room's delta.
local function log_leave(room, shown, reason)
  local display = redis.call('HGET', base .. 'room:' .. room, 'display') or room
  log_event('leave', '"room":%s,"nick":%s,"reason":"%s"', cjson.encode(display), shown, reason, now())
  return string.format('{"nick":%s,"reason":"%s"}', shown, reason)
end
