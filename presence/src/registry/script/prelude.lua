-- The shared beginning of every registry script, between its first line and its body. Needs generation.lua and
-- webhook_log.lua.
--
-- The same in all scripts: KEYS[1] is the generation record, KEYS[2] the lease table, ARGV[1] (`base`) the beginning of
-- every key and channel of the partition. A name that is not known before the call is built from `base`, as in keys.rs.
-- Owner tokens are `<incarnation>/<session>/<fence>`, member records `<owner token> <JSON of the member info>`.

local base = ARGV[1]

-- The retention of freed nicks, ended sessions and empty rooms, in seconds. A room's meta outlives every position in
-- its stream.
local RETENTION = 72 * 3600
local META_RETENTION = 73 * 3600

-- Returns integer Unix milliseconds, for display and retention, never for ownership. Constant while a script runs.
local clock
local function now()
  if not clock then
    local time = redis.call('TIME')
    clock = time[1] * 1000 + math.floor(time[2] / 1000)
  end
  return clock
end

-- Number and phase of the generation, and the events that webhooks want; set by `enter_generation`.
local generation_number, phase, wanted_events

-- Begins a generation: the store may have lost data, so it assigns nothing before the gateways have reasserted their
-- claims. A number never returns, even if the record is lost: the clock serves as a source of numbers.
local function begin_generation()
  local time = now()
  local history = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
  local before = tonumber(redis.call('HGET', KEYS[1], 'generation')) or 0
  generation_number, phase = string.format('%d', math.max(before + 1, time)), 'recovering'
  redis.call('HSET', KEYS[1], 'replid', history, 'generation', generation_number, 'phase', phase, 'since', time, 'seen',
    time)
  redis.call('DEL', base .. 'asserted')
end

-- Begins a generation if the store's history is not the recorded one (restart, failover, flush), or if an open one lost
-- the lease table or the fence counter. The first call of every writing registry script.
local function enter_generation()
  local replid
  replid, phase, generation_number, wanted_events =
    unpack(redis.call('HMGET', KEYS[1], 'replid', 'phase', 'generation', 'webhooks'))
  if not is_of_now(replid) or phase == 'open' and redis.call('EXISTS', KEYS[2], base .. 'fence') < 2 then
    begin_generation()
  end
end

-- Ends a script that assigns something, before its first write, while the generation is recovering.
local function require_open()
  if phase ~= 'open' then
    error({ err = 'RECOVERING the gateways are still reasserting their claims' })
  end
end

-- Returns true if a lease may write and own. A lease that is not in the table counts as fenced.
local function serves(incarnation)
  local state = redis.call('HGET', KEYS[2], incarnation)
  return state == 'live' or state == 'draining'
end

-- Returns the incarnation at the beginning of an owner token or a member record.
local function incarnation_of(token)
  return string.match(token, '^[^/]+')
end

-- Splits a member record into owner token and member info.
local function split_record(record)
  return string.match(record, '^(%S+) (.*)$')
end

-- Returns the score of an owner's session in lists of users and members: the first 48 bits of its id, so that a rename
-- keeps its place. The twin is SessionId::list_score. A text: Redis takes longer to write a large number of Lua than to
-- run a command.
local function list_score(token)
  return string.format('%d', tonumber(string.sub(string.match(token, '/([^/]+)/'), 1, 12), 16) or 0)
end

-- Returns the seq of a stream's newest message, from meta or stream, whichever is higher.
local function stream_end(meta, log)
  local seq = tonumber(redis.call('HGET', meta, 'seq')) or 0
  local top = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
  return math.max(seq, top and tonumber(string.match(top[1], '^%d+')) or 0)
end

-- Publishes a change of a room's members under the next version: a jump in versions reveals a missed change.
local function announce(room, delta)
  local version = redis.call('HINCRBY', base .. 'room:' .. room, 'version', 1)
  redis.call('PUBLISH', base .. 'ch:room:' .. room, 'P ' .. version .. ' ' .. #delta .. '\n' .. delta)
end

-- Adds to the bounded event log of the event API, and to the log of the webhooks that want it. `fields` is JSON without
-- its braces; the time is added here.
local function log_event(kind, fields, ...)
  local data = string.format('{' .. fields .. ',"time":%d}', ...)
  redis.call('XADD', base .. 'events', 'MAXLEN', '~', 10000, '*', 'kind', kind, 'data', data)
  if is_wanted(wanted_events, kind) then
    log_for_webhooks(wanted_events, kind, string.format('%d', now()), '', data)
  end
end
