#!lua
-- JOIN: writes a member record and announces it to the room. O(1), independent of the size of the room.
-- KEYS: 1 generation, 2 leases, 3 room meta, 4 room stream, 5 members, 6 member-list, 7 rooms, 8 nick-rooms, 9
--       owned-members, 10 nick record, 11 session-rooms
-- ARGV: 1 base, 2 owner token, 3 room key, 4 room as typed, 5 nick key, 6 nick as shown, 7 JSON of the member info, 8
--       an unused epoch, 9 nick key and 10 owner token of the record that this one replaces, both '' for a new member,
--       11 '0' if the room must exist, '2' if an application orders the entry, which then needs no invite and no right
--       to create the room, else '1', 12 JSON of the room's rules in the configuration or '', 13 '1' if the member's
--       token lets it moderate the room, else '0'
-- Reply: {'OK', room as shown, epoch, seq, member count, forks, topic as JSON or '', role or ''}; {'FENCED'}; {'STALE'}
--        if the caller does not own the nick; {'NO_SUCH_ROOM'} if it must exist and does not; {'NOT_ALLOWED'} if the
--        caller may not create it; {'BANNED'}, {'INVITE_ONLY'} or {'ROOM_FULL'} if the room does not admit it
-- Called by Registry::join.
local _, _, meta, log, members, member_list, rooms, nick_rooms, owned_members, nick_record, session_rooms = unpack(KEYS)
local _, token, room, display, nick, shown, info, epoch, old_nick, old_token, may_create, configured, by_token =
  unpack(ARGV)

enter_generation()
require_open()
if not serves(incarnation_of(token)) then
  return { 'FENCED' }
end
-- This also stops a late join from before a resume.
if redis.call('HGET', nick_record, 'owner') ~= token then
  return { 'STALE' }
end
local known = stream_meta(meta, 'rules', 'fleeting', 'moderated', 'topic')
local exists, moderated, topic = known[1] or known[7], known[10], known[11]
if may_create == '0' and not exists then
  return { 'NO_SUCH_ROOM' }
end
local before = redis.call('HGET', members, nick)
local before_owner, before_info
if before then
  before_owner, before_info = split_record(before)
end
local is_same = before and succeeds(token, before_owner)
local replaced = old_nick ~= '' and redis.call('HGET', members, old_nick)
local from = replaced and succeeds(old_token, split_record(replaced)) and shown_nick(replaced, old_nick)
local to = cjson.encode(shown)

local rules = rules_of(known[8], configured)
local identity = (rules or moderated) and identity_of(nick, info)

local function is_invited()
  local role = moderated and role_of(room, identity, now())
  return role == 'owner' or role == 'moderator' or by_token == '1' or may_create == '2' or moderated and redis.call('HEXISTS', meta .. ':invites', identity) == 1
end

-- Returns the reason not to admit a new member, or nil. A session that returns has kept its place.
local function refusal()
  local create = not exists and may_create ~= '2' and rules and rules.create
  if moderated and is_banned(room, identity, now()) then
    return 'BANNED'
  elseif create == 'api' or create == 'token' and string.sub(identity, 1, 1) ~= 'u' then
    return 'NOT_ALLOWED'
  elseif not rules or not exists or redis.call('SISMEMBER', session_rooms, room) == 1 then
    return nil
  elseif rules.invite_only and not is_invited() then
    return 'INVITE_ONLY'
  elseif rules.members_max and not before and redis.call('HLEN', members) >= rules.members_max then
    return 'ROOM_FULL'
  end
end

-- A member stays one under a banned nick.
local refused = not (is_same or from) and refusal()
if refused then
  -- A later resume does not try again.
  redis.call('SREM', session_rooms, room)
  return { refused }
end

local present, top, _, forks, _, room_shown = touch(meta, log, generation_number, epoch, known)
if not room_shown then
  room_shown = display
  redis.call('HSET', meta, 'display', display)
end
if not exists and rules and rules.roles and may_create ~= '2' then
  redis.call('HSET', meta .. ':roles', identity, 'owner')
  redis.call('HSET', meta, 'moderated', '1')
  moderated = '1'
end
redis.call('SADD', session_rooms, room)

local count
-- A record of the same owner stays, unless its shown spelling changes.
if before_owner ~= token or (from and from ~= to) then
  if from then
    drop_member(room, old_nick, replaced)
  end
  if before and before_owner ~= token then
    drop_member(room, nick, before)
    if not is_same then
      log_leave(room, shown_nick(before, nick), leave_reason(incarnation_of(before)))
    end
  end
  from = from or (is_same and shown_nick(before, nick))
  redis.call('HSET', members, nick, token .. ' ' .. info)
  redis.call('ZADD', member_list, list_score(token), nick)
  redis.call('SADD', nick_rooms, room)
  redis.call('SADD', owned_members, room .. ' ' .. nick)
  redis.call('PERSIST', meta)
  count = redis.call('HLEN', members)
  -- A room with members is listed, and its stream has no TTL unless it is ephemeral.
  if count == 1 then
    redis.call('ZADD', rooms, 0, room)
    if not known[9] then
      redis.call('PERSIST', log)
    end
    if moderated then
      for _, list in ipairs({ ':roles', ':bans', ':invites' }) do
        redis.call('PERSIST', meta .. list)
      end
    end
  end
  if from and from ~= to then
    announce(room, '{"renamed":[{"from":' .. from .. ',"to":' .. to .. '}]}')
  elseif from then
    -- The session was a member already, under an older claim.
    if info ~= before_info then
      announce(room, '{"status":[' .. info .. ']}')
    end
  else
    announce(room, '{"joined":[' .. info .. ']}')
    log_event('join', '"room":%s,"nick":%s', cjson.encode(room_shown), to, now())
  end
end
local role = moderated and role_of(room, identity, now()) or 'member'
return { 'OK', room_shown, present, top, count or redis.call('HLEN', members), forks, topic or '',
  role ~= 'member' and role or '' }
