-- What the writing scripts begin with: it stands between a script's first line and its body. Needs generation.lua and log.lua.
--
-- The same in both: KEYS[1] is the generation record, KEYS[2] the lease table, ARGV[1] what every key and channel of the
-- partition begins with (`base`), ARGV[2] the generation that the caller knows (0: any), ARGV[3] the most keys in a bucket,
-- ARGV[4] the incarnation that puts back what was acked and is lost, or '' where something new is said.
-- Owner tokens are `<incarnation>/<session>/<fence>`. Everything is checked before the first write; without allow-oom a
-- full Redis refuses a call whole.

local base, repairer = ARGV[1], ARGV[4]
local is_repair = repairer ~= ''

-- Why nothing may be written, or nil. A store that restarted may have lost what was acked last: nothing new gets a number
-- before it has noticed that and recovered; which takes until all that was lost is put back.
local number, phase, is_noticed = generation()
local refusal
if phase ~= 'open' and not (is_repair and is_noticed) then
  refusal = 'RECOVERING the gateways are still saying what they hold'
elseif ARGV[2] ~= '0' and ARGV[2] ~= number then
  refusal = 'RECOVERING the caller knows another generation'
end

-- Integer Unix milliseconds: for display and retention, never for ownership.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

-- Whether a lease may write and own. One that is not in the table is as good as fenced.
local function serves(incarnation)
  local state = redis.call('HGET', KEYS[2], incarnation)
  return state == 'live' or state == 'draining'
end

local function split_token(token)
  return string.match(token, '^([^/]+)/([^/]+)/')
end

-- The session that has a nick or had it last, if there was one, and its gateway if it is there. A session that goes by
-- another nick now is reached under that one. With `known`, of that session.
local function whereabouts(record, nick, known)
  local session = known or redis.call('HGET', record, 'session')
  if not session then
    return nil
  end
  local present = redis.call('HGET', base .. 'session:' .. session, 'nick') or nick
  local owner, detached = unpack(redis.call('HMGET', base .. 'nick:' .. present, 'owner', 'detached'))
  local at, owned_by = split_token(owner or '')
  return session, owned_by == session and not detached and serves(at) and at
end

-- What is remembered of messages, so that a repetition makes no second copy: for one to two spans, then the whole bucket
-- expires. Full means refused, never forgotten early.
local function bucket(name, span_ms)
  local span = math.floor(now / span_ms)
  local newer = base .. name .. ':' .. span
  local held = redis.call('HLEN', newer)
  return {
    newer = newer,
    older = base .. name .. ':' .. (span - 1),
    room = ARGV[3] - held,
    ttl_s = held == 0 and math.floor(span_ms * 2.2 / 1000),
    notes = {},
  }
end

-- Keys that clients chose, who may come back much later; and ids of messages without one, which only their own gateway
-- repeats, at once.
local keys_seen, attempts_seen

-- Where a message is remembered, and as what. `key` is '=<the client's key>' or ''. The key is last and the others hold
-- no bar, so no two of them can be mistaken for each other.
local function place_of(target, session, key, id)
  if key ~= '' then
    keys_seen = keys_seen or bucket('idempotency', 300000)
    return keys_seen, target .. '|' .. session .. '|' .. string.sub(key, 2)
  end
  attempts_seen = attempts_seen or bucket('attempts', 30000)
  return attempts_seen, id
end

-- The answer that the first message with this key got, if there was one.
local function first_answer(seen, field)
  local answer = redis.call('HGET', seen.newer, field) or redis.call('HGET', seen.older, field)
  if not answer then
    return nil
  end
  local seq, time, id = string.match(answer, '^(%d+) (%d+) (.*)$')
  return { 'duplicate', tonumber(seq), tonumber(time), id }
end

-- What is put back had its place before.
local function has_room(seen)
  return seen.room > 0 or is_repair
end

-- Takes note of a message, with its seq and time in digits; written down by `remember`.
local function note(seen, field, seq, time, id)
  seen.room = seen.room - 1
  local notes = seen.notes
  notes[#notes + 1] = field
  notes[#notes + 1] = seq .. ' ' .. time .. ' ' .. id
end

local function remember(seen)
  if seen and #seen.notes > 0 then
    redis.call('HSET', seen.newer, unpack(seen.notes))
    if seen.ttl_s then
      redis.call('EXPIRE', seen.newer, seen.ttl_s)
    end
  end
end

-- The words in front of a payload, on a channel; seq and time in digits.
local function head(kind, seq, time, payload)
  return kind .. ' ' .. seq .. ' ' .. time .. ' ' .. #payload .. '\n'
end

local function refused(verdict)
  return { verdict, 0, 0, '' }
end
