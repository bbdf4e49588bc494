-- Epochs and seqs of streams. A stream has ids `<seq>-0` and a meta: a hash with `epoch`, `generation` (of the store,
-- in which the epoch began), `seq` and `time` (of the newest message), `bytes` and `marks` (see sizes.lua), `forks` (as
-- in model/stream.rs) and, for a room, `oldest` (no entry is older) and `display` (the room as shown). Rooms and
-- inboxes have one each. Needs nothing; scripts of both crates contain it.

local FORKS_MAX = 16

-- Lua writes large numbers with an exponent.
local function digits(number)
  return string.format('%d', number)
end

-- Reads what `touch` needs of a meta, and these fields after it.
local function stream_meta(meta, ...)
  return redis.call('HMGET', meta, 'epoch', 'generation', 'seq', 'time', 'forks', 'oldest', 'display', ...)
end

-- Returns a stream's epoch, seq, time, forks, oldest and display; `known` is its `stream_meta` if that was read. A
-- stream without an epoch, or with one from another generation, begins the `fresh` one: messages of the former
-- generation may be lost, and their seqs are about to be used again. Meta and stream are written together; after one of
-- them was lost or restored alone, the higher seq wins. So only entries beyond the meta are read, normally none.
local function touch(meta, log, generation, fresh, known)
  known = known or stream_meta(meta)
  local epoch, seq, time, forks = known[1], tonumber(known[3]) or 0, tonumber(known[4]) or 0, known[5] or ''
  local newest = redis.call('XREVRANGE', log, '+', digits(seq + 1), 'COUNT', 1)[1]
  if newest then
    seq = tonumber(string.match(newest[1], '^%d+'))
    time = math.max(time, newest[2][1] == 'time' and tonumber(newest[2][2]) or 0)
  end
  if not epoch or known[2] ~= generation then
    if epoch then
      -- The newest forks and one more.
      local kept = {}
      for fork in string.gmatch(forks, '%S+') do
        kept[#kept + 1] = fork
      end
      kept[#kept + 1] = epoch .. ':' .. digits(seq)
      forks = table.concat(kept, ' ', math.max(1, #kept - FORKS_MAX + 1))
      -- For an inbox: a read position beyond the fork would cover messages that reuse the lost seqs.
      local read = tonumber(redis.call('HGET', meta, 'read'))
      if read and read > seq then
        redis.call('HSET', meta, 'read', digits(seq))
      end
    end
    epoch = fresh
    redis.call('HSET', meta, 'epoch', epoch, 'generation', generation, 'seq', digits(seq), 'time', digits(time),
      'forks', forks)
  end
  return epoch, seq, time, forks, tonumber(known[6]), known[7]
end
