-- PRELUDE: the shared beginning of the writing scripts, between a script's first line and its body. Needs
-- generation.lua and stream.lua.
--
-- KEYS of every script: 1 generation record, 2 lease table. ARGV of every script: 1 `base`, the prefix of the
-- partition's keys and channels; 2 the generation that the caller knows (0: any); 3 the maximum number of keys in a
-- bucket; 4 the incarnation that republishes a lost message, or '' for a new message.
-- Owner tokens are `<incarnation>/<session>/<fence>`. Everything is checked before the first write; without allow-oom a
-- full Redis refuses a call whole. A right that the user loses at run time shows only at its command. So the rights to
-- store a message, to note its key and to publish it are checked first. Once it is stored, every write uses `pcall`: an
-- error would make the client send it again.

local base, republisher = ARGV[1], ARGV[4]
local is_republish = republisher ~= ''

-- Returns true if the user may not run a command. Compatible servers may lack the check.
local function lacks(command)
  return redis.acl_check_cmd and not redis.acl_check_cmd(command, base, '')
end

-- The reason to refuse writes, or nil. A restarted store may lack the newest acknowledged messages: new messages get no
-- seq until the restart is noticed and all lost messages are republished.
local number, phase, is_noticed = generation()
local refusal
if phase ~= 'open' and not (is_republish and is_noticed) then
  refusal = 'RECOVERING the gateways are still reasserting their claims'
elseif ARGV[2] ~= '0' and ARGV[2] ~= number then
  refusal = 'RECOVERING the caller knows another generation'
elseif lacks('XADD') or lacks('HSET') or lacks('PUBLISH') then
  refusal = 'NOPERM the user may not run XADD, HSET or PUBLISH'
end

-- Integer Unix milliseconds: for display and retention, never for ownership.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

-- Returns whether a lease may write and own. A lease that is missing from the table counts as fenced.
local function serves(incarnation)
  local state = redis.call('HGET', KEYS[2], incarnation)
  return state == 'live' or state == 'draining'
end

local function split_token(token)
  return string.match(token, '^([^/]+)/([^/]+)/')
end

-- Returns the session that has a nick or had it last, if any, and its gateway if the session is online. A session that
-- was renamed is reached under its present nick. With `known`, looks for that session instead.
local function whereabouts(record, nick, known)
  local session = known or redis.call('HGET', record, 'session')
  if not session then
    return nil
  end
  local current = redis.call('HGET', base .. 'session:' .. session, 'nick') or nick
  local owner, detached = unpack(redis.call('HMGET', base .. 'nick:' .. current, 'owner', 'detached'))
  local gateway, owned_by = split_token(owner or '')
  return session, owned_by == session and not detached and serves(gateway) and gateway
end

-- Opens a bucket of remembered messages, which prevents a second copy on a retry. A bucket is kept for one to two
-- spans, then it expires whole. A full bucket refuses new messages and forgets none early.
local function bucket(name, span_ms)
  local span = math.floor(now / span_ms)
  local newer = base .. name .. ':' .. span
  local count = redis.call('HLEN', newer)
  return {
    newer = newer,
    older = base .. name .. ':' .. (span - 1),
    space = ARGV[3] - count,
    rest_ms = (span + 1) * span_ms - now,
    ttl_s = count == 0 and math.floor(span_ms * 2.2 / 1000),
    notes = {},
  }
end

-- Idempotency keys of clients, which may retry much later; and ids of messages without a key, which only their own
-- gateway retries, at once.
local keys_seen, attempts_seen

-- Returns the bucket and the field of a message. `key` is '=<the client's key>', '?<the client's key>' if the sender's
-- share of the bucket is used up, or ''. The key stands last and the other parts contain no bar, so every field is
-- unambiguous.
local function key_slot(target, session, key, id)
  if key ~= '' then
    keys_seen = keys_seen or bucket('idempotency', 300000)
    return keys_seen, target .. '|' .. session .. '|' .. string.sub(key, 2)
  end
  attempts_seen = attempts_seen or bucket('attempts', 30000)
  return attempts_seen, id
end

-- Returns the answer to the first message with this key, if there was one.
local function first_answer(seen, field)
  local answer = redis.call('HGET', seen.newer, field) or redis.call('HGET', seen.older, field)
  if not answer then
    return nil
  end
  local seq, time, id = string.match(answer, '^(%d+) (%d+) (.*)$')
  return { 'duplicate', tonumber(seq), tonumber(time), id }
end

-- A republished message was counted before, so it always fits.
local function has_space(seen, key)
  return is_republish or seen.space > 0 and string.sub(key, 1, 1) ~= '?'
end

-- Notes a message, with its seq and time in digits; `remember` writes the notes.
local function note(seen, field, seq, time, id)
  seen.space = seen.space - 1
  local notes = seen.notes
  notes[#notes + 1] = field
  notes[#notes + 1] = seq .. ' ' .. time .. ' ' .. id
end

local function remember(seen)
  if seen and #seen.notes > 0 then
    redis.pcall('HSET', seen.newer, unpack(seen.notes))
    if seen.ttl_s then
      redis.pcall('EXPIRE', seen.newer, seen.ttl_s)
    end
  end
end

-- Returns the head of a frame on a channel; seq and time in digits.
local function head(kind, seq, time, payload)
  return kind .. ' ' .. seq .. ' ' .. time .. ' ' .. #payload .. '\n'
end

local function refused(verdict)
  return { verdict, 0, 0, '' }
end

-- Returns the refusal of a new key, with the milliseconds until the bucket is empty.
local function exhausted(seen)
  return { 'exhausted', 0, seen.rest_ms, '' }
end

-- The first node of a stream reserves 4 KiB; a copy has only the bytes that it holds, and grows by what is added. Most
-- streams never fill a node. Without the right to copy the stream stays as it is.
local function shrink(stream)
  local copy = stream .. ':copy'
  if redis.pcall('COPY', stream, copy) == 1 and redis.pcall('RENAME', copy, stream).err then
    redis.pcall('DEL', copy)
  end
end
