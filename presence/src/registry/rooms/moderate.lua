#!lua flags=allow-oom
-- MODERATE: carries out the order of a moderator, and announces it to the room. O(1), apart from a full list of
-- roles, bans or invites, and from the count of owners when one of them loses the role.
-- KEYS: 1 generation, 2 leases, 3 room meta, 4 members, 5 roles, 6 bans, 7 invites
-- ARGV: 1 base, 2 room key, 3 action, 4 owner token of the acting member or '' for the API, 5 its nick key or the name
--       of the API key, 6 '1' if its token lets it moderate the room, else '0', 7 nick key and 8 nick of the person or
--       '', 9 user or '', 10 seconds or '0', 11 reason or topic, 12 role for op, 13 JSON of the room's rules in the
--       configuration or ''
-- Reply: {'OK', JSON of the announced action}; {'FENCED'}; {'NOT_IN_ROOM'} if the caller is not a member;
--        {'NO_SUCH_ROOM'}; {'NOT_MODERATOR'}; {'OWNERS_ONLY'} if only an owner may; {'LAST_OWNER'} if the room would
--        have none; {'NO_SUCH_USER'}; {'NOTHING_TO_LIFT'}; {'FULL'} if the list has no space
-- Called by Registry::moderate.
local _, _, meta, members, roles, bans, invites = unpack(KEYS)
local _, room, action, token, actor, may_moderate, nick, typed, user, seconds, text, new_role, configured = unpack(ARGV)

enter_generation()
require_open()

-- Maximum number of entries of each list.
local ENTRIES_MAX = 1000

-- Ranks of those who give orders.
local NONE, MODERATOR, OWNER = 0, 1, 2

local function rank_of(identity)
  local role = role_of(room, identity, now())
  return role == 'owner' and OWNER or role == 'moderator' and MODERATOR or NONE
end

-- Returns true if any member may set the topic: in a room without roles whose rules let every member send.
local function has_open_topic()
  local rules = rules_of(redis.call('HGET', meta, 'rules'), configured)
  return redis.call('HLEN', roles) == 0 and not (rules and rules.send == 'moderators')
end

-- Returns the rank of the caller and its shown name; or a refusal.
local function rank_of_caller()
  if token == '' then
    return OWNER, actor
  elseif not serves(incarnation_of(token)) then
    return nil, 'FENCED'
  end
  local record = redis.call('HGET', members, actor)
  local owner, info
  if record then
    owner, info = split_record(record)
  end
  if owner ~= token then
    return nil, 'NOT_IN_ROOM'
  end
  local rank = rank_of(identity_of(actor, info))
  if rank == NONE and (may_moderate == '1' or action == 'topic' and has_open_topic()) then
    rank = MODERATOR
  end
  return rank, cjson.decode(shown_nick(record, actor))
end

-- Takes the present nick of a session that was renamed in place of its former one.
local function follow_rename()
  if redis.call('HEXISTS', members, nick) == 0 then
    nick = present_nick(nick)
  end
end

-- Returns the identity of the person that the order names, and its nick as shown in JSON; nil if it is not known.
local function identity_of_person(list)
  if user ~= '' then
    return 'u' .. user
  elseif not list or redis.call('HEXISTS', list, 'n' .. nick) == 0 then
    follow_rename()
  end
  local record = redis.call('HGET', members, nick)
  local identity, shown = nil, cjson.encode(typed)
  if record then
    local _, info = split_record(record)
    identity, shown = identity_of(nick, info), shown_nick(record, nick)
  else
    local display, bound = unpack(redis.call('HMGET', base .. 'nick:' .. nick, 'display', 'user'))
    if display then
      identity, shown = bound and 'u' .. bound or 'n' .. nick, cjson.encode(display)
    end
  end
  -- An entry from when the nick was a guest's can still be lifted.
  if list and (not identity or redis.call('HEXISTS', list, identity) == 0)
    and redis.call('HEXISTS', list, 'n' .. nick) == 1 then
    identity = 'n' .. nick
  end
  return identity, shown
end

-- Returns true if an entry would be one too many. Entries whose time is over make space.
local function is_full(list, identity)
  if not list or redis.call('HLEN', list) < ENTRIES_MAX or redis.call('HEXISTS', list, identity) == 1 then
    return false
  end
  local rows, has_space = redis.call('HGETALL', list), false
  for i = 1, #rows, 2 do
    local ends = list == bans and ban_end(rows[i + 1]) or list == roles and mute_end(rows[i + 1])
    if ends and is_over(ends, now()) then
      redis.call('HDEL', list, rows[i])
      has_space = true
    end
  end
  return not has_space
end

local function is_last_owner()
  local rows, owners = redis.call('HGETALL', roles), 0
  for i = 2, #rows, 2 do
    owners = owners + (rows[i] == 'owner' and 1 or 0)
  end
  return owners < 2
end

-- Returns the member records of a person: of all nicks in the user's index, and of the named one.
local function records_of(identity)
  local nicks, found = {}, {}
  if string.sub(identity, 1, 1) == 'u' then
    nicks = redis.call('ZRANGEBYSCORE', user_nicks(string.sub(identity, 2)), 0, '+inf')
  end
  nicks[#nicks + 1] = nick ~= '' and nick or nil
  for _, name in ipairs(nicks) do
    local record = redis.call('HGET', members, name)
    if record and not found[name] then
      local _, info = split_record(record)
      found[name] = (identity_of(name, info) == identity or name == nick) and record or nil
    end
  end
  return found
end

if redis.call('EXISTS', meta) == 0 then
  return { token == '' and 'NO_SUCH_ROOM' or 'NOT_IN_ROOM' }
end
local rank, by = rank_of_caller()
if not rank then
  return { by }
elseif rank == NONE then
  return { 'NOT_MODERATOR' }
end

-- The list that the action changes.
local lists = { ban = bans, unban = bans, mute = roles, unmute = roles, op = roles, deop = roles, invite = invites }
local lifts = { unban = true, unmute = true, deop = true }
local list = lists[action]
local identity, shown, records
if action ~= 'topic' then
  identity, shown = identity_of_person(lifts[action] and list)
  if not identity then
    return { lifts[action] and 'NOTHING_TO_LIFT' or 'NO_SUCH_USER' }
  end
  local role = redis.call('HGET', roles, identity)
  local is_owner = role == 'owner'
  if (is_owner or action == 'op' and new_role == 'owner') and rank < OWNER and action ~= 'invite' then
    return { 'OWNERS_ONLY' }
  end
  local ends_role = action == 'ban' or action == 'mute' or action == 'deop' or action == 'op' and new_role ~= 'owner'
  if is_owner and ends_role and is_last_owner() then
    return { 'LAST_OWNER' }
  end
  local is_muted = role and mute_end(role) ~= nil
  if action == 'unmute' and not is_muted or action == 'deop' and (not role or is_muted)
    or action == 'unban' and redis.call('HEXISTS', bans, identity) == 0 then
    return { 'NOTHING_TO_LIFT' }
  end
  records = (action == 'kick' or action == 'ban') and records_of(identity) or {}
  if action == 'kick' then
    records = { [nick] = records[nick] }
    if not records[nick] then
      return { 'NO_SUCH_USER' }
    end
  end
  if not lifts[action] and is_full(list, identity) then
    return { 'FULL' }
  end
end

local ends = (action == 'ban' or action == 'mute') and tonumber(seconds) > 0 and now() + seconds * 1000 or 0
local until_ms = string.format('%d', ends)
if action == 'ban' then
  redis.call('HSET', bans, identity, string.format('{"until":%s,"by":%s,"reason":%s,"time":%d}', until_ms,
    cjson.encode(by), cjson.encode(text), now()))
  redis.call('HDEL', roles, identity)
  redis.call('HDEL', invites, identity)
elseif action == 'mute' then
  redis.call('HSET', roles, identity, 'muted ' .. until_ms .. ' ' .. text)
  redis.call('HSET', meta, 'guard', '1')
elseif action == 'op' then
  redis.call('HSET', roles, identity, new_role)
elseif action == 'invite' then
  redis.call('HSET', invites, identity, now())
elseif lifts[action] then
  redis.call('HDEL', list, identity)
elseif action == 'topic' and text == '' then
  redis.call('HDEL', meta, 'topic')
elseif action == 'topic' then
  redis.call('HSET', meta, 'topic',
    string.format('{"text":%s,"by":%s,"time":%d}', cjson.encode(text), cjson.encode(by), now()))
end
redis.call('HSET', meta, 'moderated', '1')

local fields = { string.format('"action":"%s"', action) }
local function add(name, json)
  fields[#fields + 1] = '"' .. name .. '":' .. json
end
if user ~= '' then
  add('user', cjson.encode(user))
elseif shown then
  add('nick', shown)
end
add('by', cjson.encode(by))
if action == 'topic' then
  add('text', cjson.encode(text))
elseif text ~= '' then
  add('reason', cjson.encode(text))
end
if ends > 0 then
  add('until', until_ms)
end
if action == 'op' then
  add('role', '"' .. new_role .. '"')
end
local notice = table.concat(fields, ',')
local display = redis.call('HGET', meta, 'display') or room
log_event('moderation', '"room":%s,%s', cjson.encode(display), notice, now())
notice = '{' .. notice .. string.format(',"time":%d}', now())

local left = {}
for name, record in pairs(records or {}) do
  drop_member(room, name, record)
  left[#left + 1] = log_leave(room, shown_nick(record, name), 'kicked')
end
local delta = #left > 0 and '{"left":[' .. table.concat(left, ',') .. '],' or '{'
announce(room, delta .. '"moderation":[' .. notice .. ']}')
local details = '"by":' .. cjson.encode(by) .. ',' .. (text ~= '' and '"text":' .. cjson.encode(text) .. ',' or '')
for _, record in pairs(records or {}) do
  order_removal(room, record, action == 'ban' and 'banned' or 'kicked', details)
end
if #left > 0 then
  end_room(room)
end
return { 'OK', notice }
