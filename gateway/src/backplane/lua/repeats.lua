-- REPEATS: finds the first attempts of messages without a client's key in the stream. Needs stream.lua.
--
-- A first attempt is noted nowhere: only its gateway repeats it, after a lost answer, and names a position of the room
-- from before the first attempt. A message that is not in the stream after that position was not stored. The repeat is
-- then stored and noted, so a first attempt that arrives later finds the note.

-- Maximum number of entries, and of payload bytes, that one call reads in a room. The gateway continues from there.
local SEARCH_ENTRIES, SEARCH_BYTES = 1000, 1048576
-- Number of entries of one read.
local SEARCH_STEP = 50

-- Returns the seq up to which a stream has all that it had at a position, as StreamEnd::shares in model/stream.rs: a
-- position of another epoch is valid up to the lowest fork since. A stale stream has had no message in this generation,
-- so it ends where its fork will be. Any other one never ends before a position in its epoch.
local function valid_seq(stream, epoch, seq)
  if epoch == stream.epoch then
    return (seq <= stream.seq or stream.is_stale) and math.min(seq, stream.seq) or 0
  end
  local shared
  for fork, last in string.gmatch(stream.forks, '(%S+):(%d+)') do
    if shared or fork == epoch then
      shared = math.min(shared or seq, tonumber(last))
    end
  end
  return shared or 0
end

-- Searches a stream for message ids after a seq. `ids` maps each to true, and then to its {seq, time} if it was found.
-- Returns the last seq that was searched, and true if it is the last one of all. Returns nil if messages after the
-- first seq are missing: one of them may be the searched one.
local function search(stream, ids, after)
  local entries, bytes, last = nil, 0, after
  repeat
    entries = redis.call('XRANGE', stream.key, digits(last + 1), '+', 'COUNT', SEARCH_STEP)
    for _, entry in ipairs(entries) do
      local seq, payload = tonumber(string.match(entry[1], '^%d+')), entry[2][4] or ''
      if seq ~= last + 1 then
        return nil
      end
      -- Names contain no quotes, so the first match is the field itself.
      local id = string.match(payload, '"id":"([^"]*)"')
      if id and ids[id] then
        ids[id] = { seq, tonumber(entry[2][2]) }
      end
      last, bytes = seq, bytes + #payload
    end
  until #entries < SEARCH_STEP or last - after >= SEARCH_ENTRIES or bytes >= SEARCH_BYTES
  local is_end = #entries < SEARCH_STEP
  if is_end and last < stream.seq then
    return nil
  end
  return last, is_end
end
