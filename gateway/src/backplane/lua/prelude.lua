-- What both scripts begin with: it stands between a script's first line and its body.
--
-- The same in both: KEYS[1] is the lease table, ARGV[1] what every key and channel of the partition begins with (`base`),
-- ARGV[2] the most keys in an idempotency bucket. Owner tokens are `<incarnation>/<session>/<fence>`.
-- Everything is checked before the first write; without allow-oom a full Redis refuses a call whole.

-- A generation that has just begun will be noticed here and answered with `unavailable`, once generations recover. Until
-- then whatever the lease table and the member records say is the truth, and the beat notes the new generation.

local base = ARGV[1]

-- A key is remembered for one to two of these, then its whole bucket expires: it is asked for during its own span and the
-- one after it.
local BUCKET_MS = 300000
local BUCKET_TTL_S = 660

-- Integer Unix milliseconds: for display and retention, never for ownership.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local bucket = math.floor(now / BUCKET_MS)
local newer = base .. 'idempotency:' .. bucket
local older = base .. 'idempotency:' .. (bucket - 1)
local room_for_keys = ARGV[2] - redis.call('HLEN', newer)

-- Whether a lease may write and own. One that is not in the table is as good as fenced.
local function serves(incarnation)
  local state = redis.call('HGET', KEYS[1], incarnation)
  return state == 'live' or state == 'draining'
end

local function split_token(token)
  return string.match(token, '^([^/]+)/([^/]+)/')
end

-- Redis writes large Lua numbers with an exponent.
local function digits(number)
  return string.format('%.0f', number)
end

-- The answer that the first message with this key got, if there was one.
local function first_answer(field)
  local seen = redis.call('HGET', newer, field) or redis.call('HGET', older, field)
  if not seen then
    return nil
  end
  local seq, time, id = string.match(seen, '^(%d+) (%d+) (.*)$')
  return { 'duplicate', tonumber(seq), tonumber(time), id }
end

local function remember(field, seq, time, id)
  redis.call('HSET', newer, field, digits(seq) .. ' ' .. digits(time) .. ' ' .. id)
  redis.call('EXPIRE', newer, BUCKET_TTL_S)
end

-- The words in front of a payload, on a channel.
local function head(kind, name, seq, time, payload)
  return kind .. ' ' .. name .. ' ' .. digits(seq) .. ' ' .. digits(time) .. ' ' .. #payload .. '\n'
end

local function refused(verdict)
  return { verdict, 0, 0, '' }
end
