-- The rule that assigns a nick to a session, documented at Registry::claim (names/mod.rs). Shared by CLAIM and RESUME,
-- which have the same first keys and arguments. Needs the prelude, owners.lua, free_nick.lua and take_over.lua. The
-- memory twin is in names/memory.rs.

local _, _, fences, record, mapped_skeleton, shown_skeleton, session_record, inbox, session_rooms, online,
  owned_nicks = unpack(KEYS)
local _, incarnation, session, nick, display, skeletons, ascii, compared_score = unpack(ARGV)
local user = ARGV[11]
-- A nick is in both sets, or in one if its skeletons are equal.
local lookalikes = mapped_skeleton == shown_skeleton and { mapped_skeleton } or { mapped_skeleton, shown_skeleton }

-- Returns the fields of a nick's record that the rule reads. Every record has a shown name.
local function nick_fields(key)
  local owner, detached, held, held_until, shown, indexed, bound =
    unpack(redis.call('HMGET', key, 'owner', 'detached', 'held', 'held_until', 'display', 'skeleton', 'user'))
  return { owner = owner, detached = detached, held = held, held_until = held_until, shown = shown,
    skeletons = indexed or '', user = bound }
end

-- Returns the remaining hold in ms if another session keeps the nick; -1 without a remaining hold, for example while
-- that session is connected; nil if the nick is available.
local function hold_by_other(fields, is_own)
  local owner, held = fields.owner, fields.held
  if owner and is_own(owner) or not owner and (not held or held == session) then
    return nil
  end
  local left = (tonumber(fields.held_until) or 0) - now()
  if owner then
    local state = redis.call('HGET', KEYS[2], incarnation_of(owner))
    if state == 'live' or state == 'draining' then
      return fields.detached and left > 0 and left or -1
    elseif state ~= 'drained' then
      return nil
    end
  end
  return left > 0 and left or nil
end

-- Returns a refusal as a reply; else nil and the stale entries of the skeletons. Nicks shown in ASCII have score 1, so
-- a `compared_score` of 0 leaves them out. The session's other nick, which a rename gives up later, stays. A nick that
-- is bound to a user is available to this user, and to no other one.
local function refusal(fields, is_own)
  if fields.user and fields.user ~= user then
    return { 'IN_USE', -1 }
  end
  local left = hold_by_other(fields, is_own)
  if left and not fields.user then
    return { 'IN_USE', left }
  end
  local stale = {}
  for _, sharing in ipairs(lookalikes) do
    local position = 0
    local other = redis.call('ZRANGEBYSCORE', sharing, 0, compared_score, 'LIMIT', position, 1)[1]
    while other do
      if other ~= nick then
        local others = nick_fields(base .. 'nick:' .. other)
        if hold_by_other(others, is_own) then
          return { 'CONFUSABLE' }
        elseif not (others.owner and is_own(others.owner)) then
          stale[#stale + 1] = { sharing, other }
        end
      end
      position = position + 1
      other = redis.call('ZRANGEBYSCORE', sharing, 0, compared_score, 'LIMIT', position, 1)[1]
    end
  end
  return nil, stale
end

-- Indexes the nick as it is shown now, under its skeletons and no others.
local function index_spelling(fields)
  for _, sharing in ipairs(skeleton_keys(fields.skeletons)) do
    if sharing ~= mapped_skeleton and sharing ~= shown_skeleton then
      redis.call('ZREM', sharing, nick)
      age_lookalikes(sharing)
    end
  end
  for _, sharing in ipairs(lookalikes) do
    redis.call('ZADD', sharing, ascii, nick)
    redis.call('PERSIST', sharing)
  end
end

-- Writes this gateway's claim into the record and the indexes. Returns its fence. A new record has no TTL and nothing
-- to delete.
local function own(fields, ...)
  local fence = redis.call('INCR', fences)
  local owner = incarnation .. '/' .. session .. '/' .. fence
  if fields.shown then
    redis.call('HDEL', record, 'detached', 'held', 'held_until')
    redis.call('PERSIST', record)
  end
  redis.call('HSET', record, 'owner', owner, 'session', session, 'display', display, 'skeleton', skeletons, ...)
  index_spelling(fields)
  redis.call('ZADD', online, list_score(owner), nick)
  redis.call('SADD', owned_nicks, nick)
  if user ~= '' then
    bind(nick, user)
  end
  return fence
end

-- Assigns the nick to a session that did not have it. The caller has checked that no other session keeps it, or that it
-- is bound to the user: then it is taken over. Returns the fence, and true if the nick stays online.
local function assign(fields, stale)
  local before, stays = fields.owner, false
  if before then
    local state = redis.call('HGET', KEYS[2], incarnation_of(before))
    if fields.user then
      stays = state and state ~= 'fenced'
      order_end(before)
      end_memberships(nick, before)
    end
    local shown = free_nick(nick, before)
    if not stays then
      log_offline(shown, leave_reason(incarnation_of(before)))
    end
  end
  for _, entry in ipairs(stale) do
    redis.call('ZREM', unpack(entry))
  end
  if fields.shown then
    redis.call('HDEL', record, 'status')
  end
  local time = string.format('%d', now())
  return own(fields, 'since', time, 'last_active', time), stays
end

-- Removes the TTLs of the session's keys while it owns this nick.
local function keep_session(...)
  redis.call('HSET', session_record, 'nick', nick, ...)
  for _, key in ipairs({ session_record, inbox, session_rooms }) do
    redis.call('PERSIST', key)
  end
end
