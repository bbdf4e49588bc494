-- Takes a nick over from another claim. Shared by CLAIM and RESUME. Needs the prelude, owners.lua, drop_member.lua and
-- end_room.lua. The memory twin is in names/memory.rs.

-- Orders the gateway of an older claim to end its connection, at once over its channel, and by its mailbox in case the
-- channel message is lost.
local function order_end(owner)
  local gateway, session, fence = incarnation_of(owner), session_of(owner), fence_of(owner)
  if serves(gateway) then
    redis.call('RPUSH', base .. 'mailbox:' .. gateway,
      string.format('{"taken":{"session":"%s","fence":%s}}', session, fence))
    redis.call('PUBLISH', base .. 'ch:gw:' .. gateway, 'T ' .. session .. ' ' .. fence)
  end
end

-- Ends the memberships that the session of an older claim has under a nick, and announces each. O(rooms of the nick).
local function end_memberships(nick, owner)
  local session, reason = session_of(owner), leave_reason(incarnation_of(owner))
  for _, room in ipairs(redis.call('SMEMBERS', base .. 'nick-rooms:' .. nick)) do
    local record = redis.call('HGET', base .. 'members:' .. room, nick)
    if record and session_of(record) == session then
      drop_member(room, nick, record)
      announce(room, '{"left":[' .. log_leave(room, shown_nick(record, nick), reason) .. ']}')
      end_room(room)
    end
  end
end
