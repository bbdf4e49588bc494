-- PRELUDE: the shared beginning of the writing scripts, between a script's first line and its body. Needs
-- generation.lua, webhook_log.lua and stream.lua.
--
-- KEYS of every script: 1 generation record, 2 lease table. ARGV of every script: 1 `base`, the prefix of the
-- partition's keys and channels; 2 the generation that the caller knows (0: any); 3 the maximum number of notes in a
-- bucket; 4 the incarnation that republishes a lost message, or '' for a new message.
-- Owner tokens are `<incarnation>/<session>/<fence>`, and `api/*<name of the key>/0` for a message of the server API,
-- which has no lease, nick or membership (`Owner::of_api`).
-- Everything is checked before the first write; without allow-oom a full Redis refuses a call whole. A right that the
-- user loses at run time shows only at its command. So the rights to store a message, to note its key and to publish it
-- are checked first. Once it is stored, every write uses `pcall`: an error would make the client send it again.

local base, republisher = ARGV[1], ARGV[4]
local is_republish = republisher ~= ''

-- Returns true if the user may not run a command. Compatible servers may lack the check.
local function lacks(command)
  return redis.acl_check_cmd and not redis.acl_check_cmd(command, base, '')
end

-- The reason to refuse writes, or nil. A restarted store may lack the newest acknowledged messages: new messages get no
-- seq until the restart is noticed and all lost messages are republished.
local number, phase, is_noticed, wanted_events = generation()
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
local now_stamp = digits(now)

-- Incarnation -> state of its lease, each read once.
local leases = {}

-- Returns whether a lease may write and own. A lease that is missing from the table counts as fenced.
local function serves(incarnation)
  local state = leases[incarnation]
  if state == nil then
    state = redis.call('HGET', KEYS[2], incarnation)
    leases[incarnation] = state
  end
  return state == 'live' or state == 'draining'
end

-- The first part of the token that was checked last, with its slash, and whether its lease serves. The tokens of a call
-- nearly always begin alike.
local last_part, last_serves = '/', false

-- Returns whether the writer of a message may write: the republisher, or the lease in the sender's owner token.
local function writer_serves(token)
  if is_republish then
    return serves(republisher)
  end
  if string.find(token, last_part, 1, true) ~= 1 then
    last_part = string.match(token, '^[^/]+/')
    last_serves = last_part == 'api/' or serves(string.sub(last_part, 1, -2))
  end
  return last_serves
end

-- Returns whether the message that `writer_serves` has just checked is from the server API.
local function is_from_api()
  return last_part == 'api/' and not is_republish
end

local function split_token(token)
  return string.match(token, '^([^/]+)/([^/]+)/')
end

-- Returns the time of a message after one at `time`, and in digits.
local function message_time(time)
  if time > now then
    return time, digits(time)
  end
  return now, now_stamp
end

-- Returns the head of a frame on a channel; seq and time in digits.
local function head(kind, seq, time, payload)
  return kind .. ' ' .. seq .. ' ' .. time .. ' ' .. #payload .. '\n'
end

local function refused(verdict)
  return { verdict, 0, 0, '' }
end

-- The first node of a stream reserves 4 KiB; a copy has only the bytes that it holds, and grows by what is added. Most
-- streams never fill a node. Without the right to copy the stream stays as it is.
local function shrink(stream)
  local copy = stream .. ':copy'
  if redis.pcall('COPY', stream, copy) == 1 and redis.pcall('RENAME', copy, stream).err then
    redis.pcall('DEL', copy)
  end
end
