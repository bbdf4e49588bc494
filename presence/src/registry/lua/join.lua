#!lua
-- JOIN: writes a member record and tells the room. O(1), whatever the size of the room.
-- KEYS: 1 generation, 2 leases, 3 room meta, 4 room log, 5 members, 6 member-list, 7 rooms, 8 nick-rooms, 9 owned-members
-- ARGV: 1 base, 2 owner token, 3 room key, 4 room as typed, 5 nick key, 6 JSON of the member info, 7 an unused epoch,
--       8 nick key and 9 owner token of the record that this one replaces, both '' for a new member
-- Reply: {'OK', room as shown, epoch, seq, member count, forks}; {'FENCED'}; {'STALE'} when a later claim of the nick is a member
-- Called by Registry::join.
local _, _, meta, log, members, member_list, rooms, nick_rooms, owned_members = unpack(KEYS)
local _, token, room, display, nick, info, epoch, old_nick, old_token = unpack(ARGV)

local function fence_of(owner)
  return tonumber(string.match(owner, '%d+$'))
end

enter_generation()
if not serves(incarnation_of(token)) then
  return { 'FENCED' }
end
local before = redis.call('HGET', members, nick)
local before_owner = before and split_record(before)
if before and before_owner ~= token and fence_of(before_owner) > fence_of(token) then
  return { 'STALE' }
end
local replaced = old_nick ~= '' and redis.call('HGET', members, old_nick)
local from = replaced and split_record(replaced) == old_token and shown_nick(replaced, old_nick)
local to = shown_nick(token .. ' ' .. info, nick)

local present, top, _, forks = touch(meta, log, redis.call('HGET', KEYS[1], 'generation'), epoch)
redis.call('HSETNX', meta, 'display', display)

-- What the same owner wrote before stands, unless it is shown in another spelling now.
if before_owner ~= token or (from and from ~= to) then
  if from then
    drop_member(room, old_nick, replaced)
  end
  if before and before_owner ~= token then
    drop_member(room, nick, before)
    log_leave(room, shown_nick(before, nick), serves(incarnation_of(before)) and 'closed' or 'gateway_lost')
  end
  redis.call('HSET', members, nick, token .. ' ' .. info)
  redis.call('ZADD', member_list, 0, nick)
  redis.call('ZADD', rooms, 0, room)
  redis.call('SADD', nick_rooms, room)
  redis.call('SADD', owned_members, room .. ' ' .. nick)
  redis.call('PERSIST', meta)
  redis.call('PERSIST', log)
  if from then
    announce(room, '{"renamed":[{"from":' .. from .. ',"to":' .. to .. '}]}')
  else
    announce(room, '{"joined":[' .. info .. ']}')
    log_event('join', '"room":%s,"nick":%s', cjson.encode(redis.call('HGET', meta, 'display')), to, now())
  end
end
return { 'OK', redis.call('HGET', meta, 'display'), present, top, redis.call('HLEN', members), forks }
