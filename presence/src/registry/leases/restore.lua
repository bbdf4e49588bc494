-- Restores claims: writes a gateway's claim again, whether all, part or none of it is still there. Announces nothing,
-- since no loss was announced. Needs the prelude, owners.lua, user_nicks.lua and free_nick.lua.

-- The hold of a detached session whose hold the store has lost, in milliseconds.
local HOLD_MS = 60000

-- The highest fence seen: the counter must not be below it when the next claim is assigned.
local highest_fence = tonumber(redis.call('GET', base .. 'fence')) or 0

local function fence_of(owner)
  local fence = tonumber(string.match(owner, '%d+$'))
  highest_fence = math.max(highest_fence, fence)
  return fence
end

-- Begins an epoch of this generation in a stream without one.
local function begin_epoch(meta, epoch)
  if redis.call('HSETNX', meta, 'epoch', epoch) == 1 then
    redis.call('HSET', meta, 'generation', generation_number)
  end
end

-- Ends an earlier claim to a nick. Its gateway has to reassert again; the answer then names the claim as superseded.
local function supersede(nick, owner)
  local gateway = incarnation_of(owner)
  redis.call('SREM', base .. 'owned-nicks:' .. gateway, nick)
  redis.call('SREM', base .. 'asserted', gateway)
end

-- Restores a nick and its session, unless a later claim has it. Returns true if this claim has the nick. `epoch` is for
-- an inbox without one.
local function restore_nick(claim, epoch)
  local nick, owner = claim.nick, claim.owner
  local record, incarnation = base .. 'nick:' .. nick, incarnation_of(owner)
  local session = string.match(owner, '/([^/]+)/')
  local session_record = base .. 'session:' .. session
  local known, fence, time = redis.call('HGET', record, 'owner'), fence_of(owner), now()
  if known and known ~= owner then
    if fence_of(known) >= fence then
      return false
    end
    supersede(nick, known)
  end
  if known ~= owner then
    redis.call('HDEL', record, 'held', 'held_until', 'detached')
    redis.call('HSET', session_record, 'token', claim.token)
  end
  -- The store may have an older spelling.
  unindex(nick, redis.call('HGET', record, 'skeleton') or '')
  redis.call('HSET', record, 'owner', owner, 'session', session, 'display', claim.display, 'skeleton', claim.skeletons)
  redis.call('HSETNX', record, 'since', time)
  redis.call('HSETNX', record, 'last_active', time)
  if claim.status == '' then
    redis.call('HDEL', record, 'status')
  else
    redis.call('HSET', record, 'status', claim.status)
  end
  if claim.detached and redis.call('HSETNX', record, 'detached', time) == 1 then
    redis.call('HSET', record, 'held_until', time + HOLD_MS)
  end
  redis.call('PERSIST', record)
  if claim.user then
    bind(nick, claim.user)
  else
    redis.call('HDEL', record, 'user')
  end
  for skeleton in string.gmatch(claim.skeletons, '%S+') do
    redis.call('PERSIST', base .. 'skeleton:' .. skeleton)
    redis.call('ZADD', base .. 'skeleton:' .. skeleton, claim.ascii, nick)
  end
  redis.call('ZADD', base .. 'online', list_score(owner), nick)
  redis.call('SADD', base .. 'owned-nicks:' .. incarnation, nick)
  redis.call('HSET', session_record, 'nick', nick)
  redis.call('HSETNX', session_record, 'token', claim.token)
  begin_epoch(session_record, epoch)
  redis.call('PERSIST', session_record)
  redis.call('PERSIST', base .. 'inbox:' .. session)
  return true
end

-- Restores one membership, unless a later claim of the nick has it. `epoch` is for a room without one.
local function restore_member(claim, room, name, epoch)
  local nick, owner, entry = claim.nick, claim.owner, room .. ' ' .. claim.nick
  local members, meta = base .. 'members:' .. room, base .. 'room:' .. room
  local session_rooms = base .. 'session-rooms:' .. string.match(owner, '/([^/]+)/')
  local before = redis.call('HGET', members, nick)
  local known = before and split_record(before)
  if known and known ~= owner then
    if fence_of(known) > fence_of(owner) then
      return
    end
    redis.call('SREM', base .. 'owned-members:' .. incarnation_of(known), entry)
  end
  redis.call('HSET', members, nick, owner .. ' ' .. claim.info)
  redis.call('ZADD', base .. 'member-list:' .. room, list_score(owner), nick)
  redis.call('ZADD', base .. 'rooms', 0, room)
  redis.call('SADD', base .. 'nick-rooms:' .. nick, room)
  redis.call('SADD', base .. 'owned-members:' .. incarnation_of(owner), entry)
  redis.call('SADD', session_rooms, room)
  redis.call('PERSIST', session_rooms)
  begin_epoch(meta, epoch)
  redis.call('HSETNX', meta, 'display', name)
  redis.call('PERSIST', meta)
  redis.call('PERSIST', base .. 'log:' .. room)
end
