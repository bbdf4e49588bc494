-- The list of sanctions: a hash of lines, `<kind> <version> <time> <until or 0> <JSON>` or `lifted <version> <time> 0
-- <kind>`, with indexes by version, by end and of lifted entries. Shared by the scripts that change it. Needs the
-- prelude. The twin is store/memory/sanctions.rs.

local LIFTED_MAX, ENDED_STEP = 1000, 100

-- Returns the next version. It is above every earlier one even if the list was lost: the clock serves as a source.
local function next_version(list)
  return string.format('%d', math.max((tonumber(redis.call('HGET', list, 'version')) or 0) + 1, now()))
end

-- Forgets entries that have ended by themselves. Every reader knows their ends.
local function forget_ended(list, order, ends)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', ends, '-inf', now(), 'LIMIT', 0, ENDED_STEP)) do
    local line = redis.call('HGET', list, id)
    if line then
      redis.call('HINCRBY', list, 'count:' .. string.match(line, '^%S+'), -1)
      redis.call('HDEL', list, id)
    end
    redis.call('ZREM', order, id)
    redis.call('ZREM', ends, id)
  end
end

-- Writes a line in place of an older one of its id, and keeps the indexes. Forgets the oldest lifted entries.
local function write_line(id, line)
  local list, order, ends, lifted = unpack(KEYS, 3, 6)
  local kind, version, until_ms = string.match(line, '^(%S+) (%d+) %d+ (%d+) ')
  local before = redis.call('HGET', list, id)
  local kind_before = before and string.match(before, '^%S+')
  if kind_before and kind_before ~= 'lifted' then
    redis.call('HINCRBY', list, 'count:' .. kind_before, -1)
  end
  redis.call('HSET', list, id, line)
  redis.call('ZADD', order, version, id)
  if until_ms == '0' then
    redis.call('ZREM', ends, id)
  else
    redis.call('ZADD', ends, until_ms, id)
  end
  if kind ~= 'lifted' then
    redis.call('HINCRBY', list, 'count:' .. kind, 1)
    redis.call('ZREM', lifted, id)
    return
  end
  redis.call('ZADD', lifted, version, id)
  while redis.call('ZCARD', lifted) > LIFTED_MAX do
    local oldest = redis.call('ZRANGEBYSCORE', lifted, '-inf', '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    redis.call('ZREM', lifted, oldest[1])
    redis.call('HDEL', list, oldest[1])
    redis.call('ZREM', order, oldest[1])
    redis.call('HSET', list, 'floor', oldest[2])
  end
end

-- Sends the new version to every gateway that serves.
local function announce_version(leases, version)
  local rows = redis.call('HGETALL', leases)
  for i = 1, #rows, 2 do
    if rows[i + 1] == 'live' or rows[i + 1] == 'draining' then
      redis.call('PUBLISH', base .. 'ch:gw:' .. rows[i], 'B ' .. version)
    end
  end
end
