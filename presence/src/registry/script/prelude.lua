-- What every script of the registry begins with: it stands between a script's first line and its body. Needs
-- generation.lua.
--
-- The same in all of them: KEYS[1] is the generation record, KEYS[2] the lease table, ARGV[1] what every key and channel
-- of the partition begins with (`base`). A name that is not known before the call is built from `base`, as in keys.rs.
-- Owner tokens are `<incarnation>/<session>/<fence>`, member records `<owner token> <JSON of the member info>`.

local base = ARGV[1]

-- Freed nicks, ended sessions and empty rooms are remembered this long; a room's meta outlives every cursor into its log.
local RETENTION = 72 * 3600
local META_RETENTION = 73 * 3600

-- Integer Unix milliseconds: for display and retention, never for ownership. Stands still while a script runs.
local clock
local function now()
  if not clock then
    local time = redis.call('TIME')
    clock = time[1] * 1000 + math.floor(time[2] / 1000)
  end
  return clock
end

-- Number and phase of the generation, once `enter_generation` has looked.
local generation_number, phase

-- Begins a generation: the store may hold less than it did, so it gives out nothing before the gateways have said what
-- they hold. A number never comes back, also when the record is lost: hence the clock, which is no more than a source of
-- numbers here.
local function begin_generation()
  local time = now()
  local history = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
  local before = tonumber(redis.call('HGET', KEYS[1], 'generation')) or 0
  generation_number, phase = string.format('%d', math.max(before + 1, time)), 'recovering'
  redis.call('HSET', KEYS[1], 'replid', history, 'generation', generation_number, 'phase', phase, 'since', time, 'seen',
    time)
  redis.call('DEL', base .. 'asserted')
end

-- Notices that this is another history than the one the record knows (restart, failover, flush), or that an open one has
-- lost what ownership rests on. The first line of every script that writes.
local function enter_generation()
  local replid
  replid, phase, generation_number = unpack(redis.call('HMGET', KEYS[1], 'replid', 'phase', 'generation'))
  if not is_of_now(replid) or phase == 'open' and redis.call('EXISTS', KEYS[2], base .. 'fence') < 2 then
    begin_generation()
  end
end

-- Ends a script that gives something out, before its first write, while the generation is recovering.
local function require_open()
  if phase ~= 'open' then
    error({ err = 'RECOVERING the gateways are still saying what they hold' })
  end
end

-- Whether a lease may write and own. One that is not in the table is as good as fenced.
local function serves(incarnation)
  local state = redis.call('HGET', KEYS[2], incarnation)
  return state == 'live' or state == 'draining'
end

-- The incarnation in front of an owner token or a member record.
local function incarnation_of(token)
  return string.match(token, '^[^/]+')
end

-- The two halves of a member record: owner token and member info.
local function split_record(record)
  return string.match(record, '^(%S+) (.*)$')
end

-- The number of a log's newest message: what the meta says and what the log holds, whichever is further.
local function log_top(meta, log)
  local seq = tonumber(redis.call('HGET', meta, 'seq')) or 0
  local top = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
  return math.max(seq, top and tonumber(string.match(top[1], '^%d+')) or 0)
end

local function room_top(room)
  return log_top(base .. 'room:' .. room, base .. 'log:' .. room)
end

-- Tells a room one change of its members, under the next version: a jump in versions is a change somebody missed.
local function announce(room, delta)
  local version = redis.call('HINCRBY', base .. 'room:' .. room, 'version', 1)
  redis.call('PUBLISH', base .. 'ch:room:' .. room, 'P ' .. version .. ' ' .. #delta .. '\n' .. delta)
end

-- Adds to the bounded log that the event API reads. `fields` is JSON without its braces; the time is added here.
local function log_event(kind, fields, ...)
  local data = string.format('{' .. fields .. ',"time":%d}', ...)
  redis.call('XADD', base .. 'events', 'MAXLEN', '~', 10000, '*', 'kind', kind, 'data', data)
end
