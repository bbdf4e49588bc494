-- Orders gateways to end memberships. Shared by the scripts that moderate and delete rooms. Needs the prelude and
-- owners.lua. The memory twin is in rooms/moderation/memory.rs.

-- Orders a gateway to end the delivery of the room to a session: at once over its channel, and by its mailbox in case
-- the channel message is lost. The number tells the two from a later order. `details` is JSON, further fields with a
-- comma after each.
local function order_removal(room, record, reason, details)
  local version = redis.call('HGET', base .. 'room:' .. room, 'version')
  local incarnation, number = incarnation_of(record), string.format('%d-%s', now(), version)
  local session = session_of((split_record(record)))
  redis.call('SREM', base .. 'session-rooms:' .. session, room)
  if not serves(incarnation) then
    return
  end
  local removal = string.format('{"session":"%s","room":"%s","reason":"%s",%s"number":"%s"}', session, room, reason,
    details, number)
  redis.call('RPUSH', base .. 'mailbox:' .. incarnation, '{"remove":' .. removal .. '}')
  redis.call('PUBLISH', base .. 'ch:gw:' .. incarnation, 'R ' .. session .. ' ' .. #removal .. '\n' .. removal)
end
