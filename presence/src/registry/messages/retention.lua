-- RETENTION: removes messages that are too old from a room's stream. Needs stream.lua.

-- Maximum number of messages that one call trims by age. A power of two, more than a call can append.
local TRIM_STEP = 256

-- Entry ids are seqs, so an entry's age needs a read. Times never decrease, so one old entry proves that all before it
-- are old: the step is halved until it ends on an old entry. Most calls of a script do not get here, so it creates its
-- function itself.
local function trim_by_age(meta, stream, oldest_time)
  -- Returns the seq of the first entry from `seq` on if it is too old, else nil and its time.
  local function expired(seq)
    local entry = redis.pcall('XRANGE', stream, seq, '+', 'COUNT', 1)[1]
    local written = entry and entry[2][1] == 'time' and tonumber(entry[2][2])
    if written and written < oldest_time then
      return tonumber(string.match(entry[1], '^%d+'))
    end
    return nil, written
  end

  local first, written = expired('-')
  if written then
    redis.pcall('HSET', meta, 'oldest', digits(written))
  end
  if not first then
    return
  end
  local step, last = TRIM_STEP, first
  while step > 1 and last == first do
    last = expired(digits(first + step - 1)) or first
    step = step / 2
  end
  redis.pcall('XTRIM', stream, 'MINID', '=', digits(last + 1) .. '-0')
end
