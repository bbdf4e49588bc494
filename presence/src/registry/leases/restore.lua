-- How a holding is put back: what a gateway said that it holds is written again, whatever of it is there still. Nothing is
-- announced, since nobody was told that it was gone. Needs the prelude.

-- How long a nick is held for a session without a connection, when the store has forgotten it.
local HOLD_MS = 60000

-- The highest fencing number seen: the counter must be above it before anything is given out.
local highest_fence = tonumber(redis.call('GET', base .. 'fence')) or 0

local function fence_of(owner)
  local fence = tonumber(string.match(owner, '%d+$'))
  highest_fence = math.max(highest_fence, fence)
  return fence
end

-- Gives a log that has lost its meta an epoch, in the generation that lost it.
local function mint(meta, epoch)
  if redis.call('HSETNX', meta, 'epoch', epoch) == 1 then
    redis.call('HSET', meta, 'generation', generation_number)
  end
end

-- Somebody else's earlier claim ends here. Should its gateway have spoken already, it has to speak again, and hears then
-- that it was overtaken.
local function overrule(nick, owner)
  local gateway = incarnation_of(owner)
  redis.call('SREM', base .. 'owned-nicks:' .. gateway, nick)
  redis.call('SREM', base .. 'gateway-nicks:' .. gateway, nick)
  redis.call('SREM', base .. 'asserted', gateway)
end

-- Restores a nick and its session, unless a later claim has it. Returns whether the nick is the holding's. `epoch` is for
-- an inbox that has none, here, and for a room.
local function restore_nick(holding, epoch)
  local nick, owner = holding.nick, holding.owner
  local record, incarnation = base .. 'nick:' .. nick, incarnation_of(owner)
  local session = string.match(owner, '/([^/]+)/')
  local session_record = base .. 'session:' .. session
  local known, fence, time = redis.call('HGET', record, 'owner'), fence_of(owner), now()
  if known and known ~= owner then
    if fence_of(known) >= fence then
      return false
    end
    overrule(nick, known)
  end
  if known ~= owner then
    redis.call('HDEL', record, 'held', 'held_until', 'detached')
    redis.call('HSET', session_record, 'token', holding.token)
  end
  redis.call('HSET', record, 'owner', owner, 'session', session, 'display', holding.display, 'skeleton', holding.skeleton)
  redis.call('HSETNX', record, 'since', time)
  redis.call('HSETNX', record, 'last_active', time)
  if holding.status == '' then
    redis.call('HDEL', record, 'status')
  else
    redis.call('HSET', record, 'status', holding.status)
  end
  if holding.detached and redis.call('HSETNX', record, 'detached', time) == 1 then
    redis.call('HSET', record, 'held_until', time + HOLD_MS)
  end
  redis.call('PERSIST', record)
  redis.call('PERSIST', base .. 'skeleton:' .. holding.skeleton)
  redis.call('ZADD', base .. 'skeleton:' .. holding.skeleton, holding.ascii, nick)
  redis.call('ZADD', base .. 'online', 0, nick)
  redis.call('SADD', base .. 'owned-nicks:' .. incarnation, nick)
  redis.call('SADD', base .. 'gateway-nicks:' .. incarnation, nick)
  redis.call('EXPIRE', base .. 'gateway-nicks:' .. incarnation, 900)
  redis.call('HSET', session_record, 'nick', nick)
  redis.call('HSETNX', session_record, 'token', holding.token)
  mint(session_record, epoch)
  redis.call('PERSIST', session_record)
  redis.call('PERSIST', base .. 'inbox:' .. session)
  return true
end

-- Restores one membership, unless a later claim of the nick has it.
local function restore_member(holding, room, name, epoch)
  local nick, owner, entry = holding.nick, holding.owner, room .. ' ' .. holding.nick
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
  redis.call('HSET', members, nick, owner .. ' ' .. holding.info)
  redis.call('ZADD', base .. 'member-list:' .. room, 0, nick)
  redis.call('ZADD', base .. 'rooms', 0, room)
  redis.call('SADD', base .. 'nick-rooms:' .. nick, room)
  redis.call('SADD', base .. 'owned-members:' .. incarnation_of(owner), entry)
  redis.call('SADD', session_rooms, room)
  redis.call('PERSIST', session_rooms)
  mint(meta, epoch)
  redis.call('HSETNX', meta, 'display', name)
  redis.call('PERSIST', meta)
  redis.call('PERSIST', base .. 'log:' .. room)
end
