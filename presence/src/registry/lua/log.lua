-- What a log is counted by. A log is a stream with ids `<seq>-0`, and a meta, a hash with `epoch`, `generation` (of the
-- store, that the epoch began in), `seq` and `time` (of the newest message) and `forks` (see log.rs). Rooms and inboxes
-- have one each. Needs nothing; scripts of both crates have it.

local MOST_FORKS = 16

-- Redis writes large Lua numbers with an exponent.
local function digits(number)
  return string.format('%.0f', number)
end

-- The newest forks, and one more.
local function with_fork(forks, epoch, seq)
  local kept = {}
  for fork in string.gmatch(forks, '%S+') do
    kept[#kept + 1] = fork
  end
  kept[#kept + 1] = epoch .. ':' .. digits(seq)
  return table.concat(kept, ' ', math.max(1, #kept - MOST_FORKS + 1))
end

-- Where a log stands: epoch, seq, time, forks. A log without an epoch, or with one from another generation, begins the
-- `fresh` one: what was given out before this generation may be lost, and its numbers are about to be given out again.
-- Meta and stream are written together; the one that is further wins when one of them was lost or restored alone.
local function touch(meta, log, generation, fresh)
  local known = redis.call('HMGET', meta, 'epoch', 'generation', 'seq', 'time', 'forks')
  local epoch, seq, time, forks = known[1], tonumber(known[3]) or 0, tonumber(known[4]) or 0, known[5] or ''
  local newest = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
  if newest then
    seq = math.max(seq, tonumber(string.match(newest[1], '^%d+')))
    time = math.max(time, newest[2][1] == 'time' and tonumber(newest[2][2]) or 0)
  end
  if not epoch or known[2] ~= generation then
    if epoch then
      forks = with_fork(forks, epoch, seq)
      -- Of an inbox: how far its client has read. What was read and lost is not read when its number is given out again.
      local read = tonumber(redis.call('HGET', meta, 'read'))
      if read and read > seq then
        redis.call('HSET', meta, 'read', digits(seq))
      end
    end
    epoch = fresh
    redis.call('HSET', meta, 'epoch', epoch, 'generation', generation, 'seq', digits(seq), 'time', digits(time), 'forks',
      forks)
  end
  return epoch, seq, time, forks
end
