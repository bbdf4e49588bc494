-- Opens a recovering generation. Part of BEAT. Needs the prelude.

-- Minimum duration of a recovery: long enough for a beat of every gateway whose lease row was lost.
local RECOVERY_MS_MIN = 2000
-- Maximum duration: a gateway that has not reasserted its claims by then is fenced.
local RECOVERY_MS_MAX = 10000
-- Maximum time without any beat; after a longer one the store is assumed to have been away.
local BEAT_GAP_MS_MAX = 2000

-- Returns true if a gateway has reasserted its claims since the generation began.
local function has_asserted(incarnation)
  return redis.call('SISMEMBER', base .. 'asserted', incarnation) == 1
end

-- Returns the recovery time since the last gap in beats, in milliseconds. A gap restarts it, so no gateway is fenced
-- because the store was away again. A clock that was set back restarts it too, so no recovery waits for the clock.
local function recovering_for()
  local time = now()
  local times = redis.call('HMGET', KEYS[1], 'since', 'seen')
  local since, seen = tonumber(times[1]) or time, tonumber(times[2]) or time
  if time < since or time - seen > BEAT_GAP_MS_MAX then
    since = time
  end
  redis.call('HSET', KEYS[1], 'since', since, 'seen', time)
  return time - since
end

-- Opens a recovering generation once every serving gateway has reasserted its claims, or is fenced for being late.
-- O(gateways).
local function open_if_recovered(ended)
  if redis.call('HGET', KEYS[1], 'phase') == 'open' then
    return
  end
  local age = recovering_for()
  if age < RECOVERY_MS_MIN then
    return
  end
  local missing = {}
  for _, incarnation in ipairs(redis.call('HKEYS', KEYS[2])) do
    if serves(incarnation) and not has_asserted(incarnation) then
      missing[#missing + 1] = incarnation
    end
  end
  if #missing > 0 and age < RECOVERY_MS_MAX then
    return
  end
  for _, incarnation in ipairs(missing) do
    redis.call('HSET', KEYS[2], incarnation, 'fenced')
    redis.call('HSET', ended, incarnation, now())
  end
  redis.call('HSET', KEYS[1], 'phase', 'open')
end
