-- The rule that assigns a nick to a session, documented at Registry::claim (names/mod.rs). Shared by CLAIM and RESUME,
-- which have the same first keys and arguments. Needs the prelude and leaves.lua. The memory twin is in
-- names/memory.rs.

local _, _, fences, record, skeletons, session_record, inbox, session_rooms, online, gateway_nicks, owned_nicks =
  unpack(KEYS)
local _, incarnation, session, nick, display, skeleton, ascii = unpack(ARGV)

-- Returns the remaining hold in ms if another session keeps the nick; -1 without a remaining hold, for example while
-- that session is connected; nil if the nick is available.
local function hold_by_other(name, is_own)
  local owner, detached, held, held_until =
    unpack(redis.call('HMGET', base .. 'nick:' .. name, 'owner', 'detached', 'held', 'held_until'))
  local left = (tonumber(held_until) or 0) - now()
  if owner then
    local state = redis.call('HGET', KEYS[2], incarnation_of(owner))
    if is_own(owner) then
      return nil
    elseif state == 'live' or state == 'draining' then
      return detached and left > 0 and left or -1
    elseif state ~= 'drained' then
      return nil
    end
  elseif not held or held == session then
    return nil
  end
  return left > 0 and left or nil
end

-- Returns a refusal as a reply; else nil and the stale entries of the skeleton. Two ASCII nicks never conflict by
-- skeleton, so an ASCII nick is compared only with others (score 0).
local function refusal(is_own)
  local left = hold_by_other(nick, is_own)
  if left then
    return { 'IN_USE', left }
  end
  local stale = {}
  while true do
    local other = redis.call('ZRANGEBYSCORE', skeletons, 0, 1 - ascii, 'LIMIT', #stale, 1)[1]
    if not other then
      return nil, stale
    end
    if other ~= nick and hold_by_other(other, is_own) then
      return { 'CONFUSABLE' }
    end
    stale[#stale + 1] = other
  end
end

-- Writes this gateway's claim into the record and the indexes. Returns its fence.
local function own(...)
  local fence = redis.call('INCR', fences)
  redis.call('HSET', record, 'owner', incarnation .. '/' .. session .. '/' .. fence, 'session', session,
    'display', display, 'skeleton', skeleton, ...)
  redis.call('HDEL', record, 'detached', 'held', 'held_until')
  redis.call('PERSIST', record)
  redis.call('ZADD', skeletons, ascii, nick)
  redis.call('PERSIST', skeletons)
  redis.call('ZADD', online, 0, nick)
  redis.call('SADD', owned_nicks, nick)
  redis.call('SADD', gateway_nicks, nick)
  redis.call('EXPIRE', gateway_nicks, 900)
  return fence
end

-- Assigns the nick to a session that did not have it. The caller has checked that no other session keeps it.
local function assign(stale)
  local before = redis.call('HGET', record, 'owner')
  if before then
    free_nick(nick, before)
    log_offline(nick, leave_reason(incarnation_of(before)))
  end
  for _, other in ipairs(stale) do
    redis.call('ZREM', skeletons, other)
  end
  redis.call('HDEL', record, 'status')
  local time = now()
  return own('since', time, 'last_active', time)
end

-- Removes the TTLs of the session's keys while it owns this nick.
local function keep_session(...)
  redis.call('HSET', session_record, 'nick', nick, ...)
  for _, key in ipairs({ session_record, inbox, session_rooms }) do
    redis.call('PERSIST', key)
  end
end
