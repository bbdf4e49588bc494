#!lua flags=allow-oom
-- ROOM_TYPING: sends a typing notice to the members of a room, unless mutes or rules keep its sender from sending
-- there. Nothing is stored. Needs roles.lua and rules.lua. The memory twin is in the presence crate's
-- registry/rooms/rules_memory.rs.
-- KEYS: 1 generation, 2 leases, 3 room, 4 members, 5 channel
-- ARGV: 1 base, 2 generation, 3 maximum number of notes in a bucket, 4 '', 5 room key, 6 nick key, 7 the notice, 8 JSON
--       of the room's rules in the configuration or '', 9 '1' if the sender's token lets it moderate the room, else '0'
-- Reply: nil
-- Called by RedisBackplane::typing.
local _, _, meta, members, channel = unpack(KEYS)
local room, nick, notice, configured, by_token = unpack(ARGV, 5)

-- Returns true for a member that may send.
local function may_send()
  local record = redis.call('HGET', members, nick)
  local info = record and string.match(record, '^%S+ (.*)$')
  local clock = redis.call('TIME')
  local role = info and role_of(room, identity_of(nick, info), clock[1] * 1000 + math.floor(clock[2] / 1000))
  if role == 'muted' then
    return false
  end
  local rules = rules_of(redis.call('HGET', meta, 'rules'), configured)
  return not rules or rules.send ~= 'moderators' or by_token == '1' or role == 'owner' or role == 'moderator'
end

-- A room without rules about messages and without mutes has no guard.
if configured == '' and not redis.call('HGET', meta, 'guard') or may_send() then
  redis.call('PUBLISH', channel, notice)
end
return false
