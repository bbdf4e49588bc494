-- How a generation opens: shared by the scripts that gateways call again and again. Needs the prelude.

-- Long enough for a gateway whose lease was lost with everything else to be heard of.
local RECOVERY_LEAST_MS = 2000
-- After this a gateway that has not said what it holds counts as dead, as one whose beat stood still.
local RECOVERY_MOST_MS = 10000
-- As long without any beat is a break of the store, not of the gateways.
local VIEW_BREAK_MS = 2000

-- Whether a lease has said what it holds since the generation began.
local function has_asserted(incarnation)
  return redis.call('SISMEMBER', base .. 'asserted', incarnation) == 1
end

-- For how long the generation has been recovering with beats coming in. A break starts it anew: nobody is to be fenced
-- because the store was away once more. So does a clock that was set back: no recovery waits for a clock to return.
local function recovering_for()
  local time = now()
  local times = redis.call('HMGET', KEYS[1], 'since', 'seen')
  local since, seen = tonumber(times[1]) or time, tonumber(times[2]) or time
  if time < since or time - seen > VIEW_BREAK_MS then
    since = time
  end
  redis.call('HSET', KEYS[1], 'since', since, 'seen', time)
  return time - since
end

-- Opens a recovering generation when everybody who serves has said what they hold, or is fenced for not having done so in
-- time. O(gateways).
local function open_if_recovered(ended)
  if redis.call('HGET', KEYS[1], 'phase') == 'open' then
    return
  end
  local age = recovering_for()
  if age < RECOVERY_LEAST_MS then
    return
  end
  local missing = {}
  for _, incarnation in ipairs(redis.call('HKEYS', KEYS[2])) do
    if serves(incarnation) and not has_asserted(incarnation) then
      missing[#missing + 1] = incarnation
    end
  end
  if #missing > 0 and age < RECOVERY_MOST_MS then
    return
  end
  for _, incarnation in ipairs(missing) do
    redis.call('HSET', KEYS[2], incarnation, 'fenced')
    redis.call('HSET', ended, incarnation, now())
  end
  redis.call('HSET', KEYS[1], 'phase', 'open')
end
