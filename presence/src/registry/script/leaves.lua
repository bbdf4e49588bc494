-- Ends claims and memberships. Shared by the scripts that release, claim, leave and reap; each compares the owner
-- first. Needs the prelude. The memory twin is in rooms/memory.rs, names/memory.rs and store/memory/leases.rs.

-- The seq from which a room is not quiet, as in publish.lua.
local BUSY_SEQ = 3

-- Maximum number of nicks examined for one skeleton; more than share one by chance.
local LOOKALIKES_MAX = 16

local function session_of(token)
  return string.match(token, '/([^/]+)/')
end

local function fence_of(token)
  return tonumber(string.match(token, '%d+$'))
end

-- Returns true if a claim equals another one, or is a later one of its session.
local function succeeds(token, other)
  return session_of(token) == session_of(other) and fence_of(token) >= fence_of(other)
end

-- Returns the leave reason of a gateway's users: gateway_lost if its lease is fenced or unknown, else closed.
local function leave_reason(incarnation)
  local state = redis.call('HGET', KEYS[2], incarnation)
  return (state and state ~= 'fenced') and 'closed' or 'gateway_lost'
end

-- Returns a true value if a nick's owner still owns it: its lease serves, or it is drained and the hold still runs.
local function is_still_owned(nick)
  local owner, held_until = unpack(redis.call('HMGET', base .. 'nick:' .. nick, 'owner', 'held_until'))
  if not owner or serves(incarnation_of(owner)) then
    return owner
  end
  return redis.call('HGET', KEYS[2], incarnation_of(owner)) == 'drained' and (tonumber(held_until) or 0) > now()
end

-- Lets a skeleton expire with the last hold of its nicks. If one of them is owned, the next claim removes stale
-- entries.
local function age_lookalikes(skeletons)
  local last = 0
  local nicks = redis.call('ZRANGEBYSCORE', skeletons, 0, 1, 'LIMIT', 0, LOOKALIKES_MAX)
  for _, nick in ipairs(nicks) do
    local owner, held_until = unpack(redis.call('HMGET', base .. 'nick:' .. nick, 'owner', 'held_until'))
    if owner then
      return
    end
    last = math.max(last, tonumber(held_until) or 0)
  end
  if #nicks < LOOKALIKES_MAX then
    redis.call('PEXPIREAT', skeletons, string.format('%.0f', last))
  end
end

-- Returns the keys of the look-alikes of a nick. Its record names one or two skeletons, separated by a space.
local function skeletons_of(record)
  local keys = {}
  for skeleton in string.gmatch(redis.call('HGET', record, 'skeleton') or '', '%S+') do
    keys[#keys + 1] = base .. 'skeleton:' .. skeleton
  end
  return keys
end

-- Ends the hold on a nick.
local function end_hold(nick)
  local record = base .. 'nick:' .. nick
  redis.call('HDEL', record, 'held', 'held_until')
  for _, sharing in ipairs(skeletons_of(record)) do
    redis.call('ZREM', sharing, nick)
    age_lookalikes(sharing)
  end
end

-- Frees a nick that `token` owns; with `held` it stays reserved for the session until the hold ends. The record remains
-- for the retention time, so its user is offline and not unknown.
local function free_nick(nick, token, held)
  local record = base .. 'nick:' .. nick
  local incarnation, session = incarnation_of(token), session_of(token)
  redis.call('HDEL', record, 'owner', 'since', 'status', 'detached')
  redis.call('EXPIRE', record, RETENTION)
  redis.call('ZREM', base .. 'online', nick)
  redis.call('SREM', base .. 'owned-nicks:' .. incarnation, nick)
  redis.call('SREM', base .. 'gateway-nicks:' .. incarnation, nick)
  if held then
    redis.call('HSET', record, 'held', session)
    for _, sharing in ipairs(skeletons_of(record)) do
      age_lookalikes(sharing)
    end
  else
    end_hold(nick)
  end
  -- After a rename the session continues under its other nick.
  if redis.call('HGET', base .. 'session:' .. session, 'nick') == nick then
    for _, kind in ipairs({ 'session:', 'inbox:', 'session-rooms:' }) do
      redis.call('EXPIRE', base .. kind .. session, RETENTION)
    end
  end
end

-- Logs that a nick went offline.
local function log_offline(nick, reason)
  local display = redis.call('HGET', base .. 'nick:' .. nick, 'display') or nick
  log_event('offline', '"nick":%s,"reason":"%s"', cjson.encode(display), reason, now())
end

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

-- Ends a room without members, otherwise does nothing. Nothing of a room that no member has spoken in is left: its
-- epoch covers no message. The others stay for clients that return with a position: for the retention time, or for
-- that of quiet rooms while they have had fewer than three messages.
local function end_room(room)
  if redis.call('EXISTS', base .. 'members:' .. room) == 1 then
    return
  end
  local meta, log = base .. 'room:' .. room, base .. 'log:' .. room
  local seq, kept = stream_end(meta, log), RETENTION
  if seq == 0 then
    redis.call('DEL', meta, log)
    return
  end
  if seq < BUSY_SEQ then
    kept = math.min(kept, tonumber(redis.call('HGET', meta, 'quiet')) or kept)
  end
  redis.call('EXPIRE', meta, kept + (META_RETENTION - RETENTION))
  redis.call('EXPIRE', log, kept)
end

-- Moves a member record to a newer claim of its session, which is about to join again itself.
local function hand_over(room, nick, record, owner)
  local before, info = split_record(record)
  redis.call('HSET', base .. 'members:' .. room, nick, owner .. ' ' .. info)
  redis.call('SREM', base .. 'owned-members:' .. incarnation_of(before), room .. ' ' .. nick)
  redis.call('SADD', base .. 'owned-members:' .. incarnation_of(owner), room .. ' ' .. nick)
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
