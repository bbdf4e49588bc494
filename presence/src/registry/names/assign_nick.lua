-- The rule that assigns a nick to a session, documented at Registry::claim (names/mod.rs). Shared by CLAIM and RESUME,
-- which have the same first keys and arguments. Needs the prelude and leaves.lua. The memory twin is in
-- names/memory.rs.

local _, _, fences, record, mapped_skeleton, shown_skeleton, session_record, inbox, session_rooms, online,
  gateway_nicks, owned_nicks = unpack(KEYS)
local _, incarnation, session, nick, display, skeletons, ascii, compared_score = unpack(ARGV)
-- A nick is in both sets, or in one if its skeletons are equal.
local lookalikes = mapped_skeleton == shown_skeleton and { mapped_skeleton } or { mapped_skeleton, shown_skeleton }

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

-- Returns a refusal as a reply; else nil and the stale entries of the skeletons. Nicks shown in ASCII have score 1, so
-- a `compared_score` of 0 leaves them out. The session's other nick, which a rename gives up later, stays.
local function refusal(is_own)
  local left = hold_by_other(nick, is_own)
  if left then
    return { 'IN_USE', left }
  end
  local stale = {}
  for _, sharing in ipairs(lookalikes) do
    local position = 0
    local other = redis.call('ZRANGEBYSCORE', sharing, 0, compared_score, 'LIMIT', position, 1)[1]
    while other do
      local owner = redis.call('HGET', base .. 'nick:' .. other, 'owner')
      if other ~= nick and hold_by_other(other, is_own) then
        return { 'CONFUSABLE' }
      elseif other ~= nick and not (owner and is_own(owner)) then
        stale[#stale + 1] = { sharing, other }
      end
      position = position + 1
      other = redis.call('ZRANGEBYSCORE', sharing, 0, compared_score, 'LIMIT', position, 1)[1]
    end
  end
  return nil, stale
end

-- Indexes the nick as it is shown now, under its skeletons and no others.
local function index_spelling()
  for _, sharing in ipairs(skeletons_of(record)) do
    redis.call('ZREM', sharing, nick)
    age_lookalikes(sharing)
  end
  redis.call('HSET', record, 'display', display, 'skeleton', skeletons)
  for _, sharing in ipairs(lookalikes) do
    redis.call('ZADD', sharing, ascii, nick)
    redis.call('PERSIST', sharing)
  end
end

-- Writes this gateway's claim into the record and the indexes. Returns its fence.
local function own(...)
  local fence = redis.call('INCR', fences)
  local owner = incarnation .. '/' .. session .. '/' .. fence
  redis.call('HSET', record, 'owner', owner, 'session', session, ...)
  redis.call('HDEL', record, 'detached', 'held', 'held_until')
  redis.call('PERSIST', record)
  index_spelling()
  redis.call('ZADD', online, list_score(owner), nick)
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
  for _, entry in ipairs(stale) do
    redis.call('ZREM', unpack(entry))
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
