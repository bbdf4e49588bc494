#!lua flags=allow-oom
-- ROOM_TYPING: sends a typing notice to the members of a room, unless its sender is muted there. Nothing is stored.
-- Needs roles.lua.
-- KEYS: 1 generation, 2 leases, 3 room, 4 members, 5 channel
-- ARGV: 1 base, 2 generation, 3 maximum number of notes in a bucket, 4 '', 5 room key, 6 nick key, 7 the notice
-- Reply: nil
-- Called by RedisBackplane::typing.
local _, _, meta, members, channel = unpack(KEYS)
local room, nick, notice = ARGV[5], ARGV[6], ARGV[7]

if redis.call('HGET', meta, 'guard') then
  local record = redis.call('HGET', members, nick)
  local clock = redis.call('TIME')
  local info = record and string.match(record, '^%S+ (.*)$')
  if info and role_of(room, identity_of(nick, info), clock[1] * 1000 + math.floor(clock[2] / 1000)) == 'muted' then
    return false
  end
end
redis.call('PUBLISH', channel, notice)
return false
