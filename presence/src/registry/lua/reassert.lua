#!lua flags=allow-oom
-- REASSERT: a gateway says what it holds, and the store has it again: for a generation that may have lost some of it, and
-- for what an audit found missing. Nothing is announced, since nobody was told that it was gone. O(what is given).
-- KEYS: 1 generation, 2 leases, 3 beats, 4 gateways, 5 fence, 6 asserted, 7 online, 8 rooms, 9 gateway-nicks,
--       10 owned-nicks, 11 owned-members (9-11 of the caller)
-- ARGV: 1 base, 2 incarnation, 3 JSON of what the gateway tells about itself, 4 the generation it speaks in, 5 '1' if this
--       is the last it has to say, else '0', 6 an unused epoch, 7.. holdings as JSON: nick, display, skeleton, ascii (1 or
--       0), owner, status (JSON, '' for plain online), info (JSON), token (hash), detached, rooms (pairs of key and name)
-- Reply: {'OK', owner token..} with the claims given that a later one has overtaken; {'FENCED'}; {'OTHER_GENERATION'} when another
--        generation has begun
-- Called by Registry::reassert.
local _, leases, beats, gateways, fences, asserted, online, rooms, gateway_nicks, owned_nicks, owned_members = unpack(KEYS)
local _, incarnation, info, number, last, epoch = unpack(ARGV)

-- How long a nick is held for a session without a connection, when the store has forgotten it.
local HOLD_MS = 60000

local highest = tonumber(redis.call('GET', fences)) or 0

local function fence_of(owner)
  local fence = tonumber(string.match(owner, '%d+$'))
  highest = math.max(highest, fence)
  return fence
end

-- Somebody else's earlier claim ends here. Its gateway hears of it at once and by its mailbox, as of a session that was
-- resumed elsewhere.
local function overrule(nick, owner)
  local gateway, session = string.match(owner, '^([^/]+)/([^/]+)/')
  redis.call('SREM', base .. 'owned-nicks:' .. gateway, nick)
  redis.call('SREM', base .. 'gateway-nicks:' .. gateway, nick)
  if gateway ~= incarnation and serves(gateway) then
    local fence = fence_of(owner)
    redis.call('RPUSH', base .. 'mailbox:' .. gateway,
      string.format('{"taken":{"session":"%s","fence":%d}}', session, fence))
    redis.call('PUBLISH', base .. 'ch:gw:' .. gateway, string.format('T %s %d', session, fence))
  end
end

-- Restores the nick and its session, unless a later claim has it. Returns whether the nick is the holding's.
local function restore_nick(holding)
  local record, owner = base .. 'nick:' .. holding.nick, holding.owner
  local session = string.match(owner, '/([^/]+)/')
  local session_record = base .. 'session:' .. session
  local known, time = redis.call('HGET', record, 'owner'), now()
  if known and known ~= owner then
    if fence_of(known) >= fence_of(owner) then
      return false
    end
    overrule(holding.nick, known)
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
  redis.call('ZADD', base .. 'skeleton:' .. holding.skeleton, holding.ascii, holding.nick)
  redis.call('ZADD', online, 0, holding.nick)
  redis.call('SADD', owned_nicks, holding.nick)
  redis.call('SADD', gateway_nicks, holding.nick)
  redis.call('HSET', session_record, 'nick', holding.nick)
  redis.call('HSETNX', session_record, 'token', holding.token)
  redis.call('PERSIST', session_record)
  redis.call('PERSIST', base .. 'inbox:' .. session)
  return true
end

-- Restores one membership. What a later claim of the nick wrote stands.
local function restore_member(holding, room, name)
  local members, meta = base .. 'members:' .. room, base .. 'room:' .. room
  local session_rooms = base .. 'session-rooms:' .. string.match(holding.owner, '/([^/]+)/')
  local before = redis.call('HGET', members, holding.nick)
  local entry = room .. ' ' .. holding.nick
  if before and split_record(before) ~= holding.owner then
    if fence_of((split_record(before))) > fence_of(holding.owner) then
      return
    end
    redis.call('SREM', base .. 'owned-members:' .. incarnation_of(before), entry)
  end
  redis.call('HSET', members, holding.nick, holding.owner .. ' ' .. holding.info)
  redis.call('ZADD', base .. 'member-list:' .. room, 0, holding.nick)
  redis.call('ZADD', rooms, 0, room)
  redis.call('SADD', base .. 'nick-rooms:' .. holding.nick, room)
  redis.call('SADD', owned_members, entry)
  redis.call('SADD', session_rooms, room)
  redis.call('PERSIST', session_rooms)
  if redis.call('HSETNX', meta, 'epoch', epoch) == 1 then
    redis.call('HSET', meta, 'generation', number)
  end
  redis.call('HSETNX', meta, 'display', name)
  redis.call('PERSIST', meta)
  redis.call('PERSIST', base .. 'log:' .. room)
end

enter_generation()
if redis.call('HGET', KEYS[1], 'generation') ~= number then
  return { 'OTHER_GENERATION' }
end
if redis.call('HEXISTS', leases, incarnation) == 0 and redis.call('HGET', KEYS[1], 'phase') == 'recovering' then
  redis.call('HSET', leases, incarnation, 'live')
  redis.call('HSETNX', beats, incarnation, 0)
  redis.call('HSETNX', gateways, incarnation, string.format('%d %s', now(), info))
end
if not serves(incarnation) then
  return { 'FENCED' }
end

local reply = { 'OK' }
for i = 7, #ARGV do
  local holding = cjson.decode(ARGV[i])
  fence_of(holding.owner)
  if restore_nick(holding) then
    for _, room in ipairs(holding.rooms) do
      restore_member(holding, room[1], room[2])
    end
  else
    reply[#reply + 1] = holding.owner
  end
end
redis.call('EXPIRE', gateway_nicks, 900)
redis.call('SET', fences, string.format('%.0f', highest))
if last == '1' then
  redis.call('SADD', asserted, incarnation)
end
return reply
