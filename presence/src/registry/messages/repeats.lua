-- REPEATS: finds the first attempts of messages without a client's key in the stream. Needs stream.lua.
--
-- A first attempt is noted nowhere: only its gateway repeats it, after a lost answer, and names a position of the room
-- from before the first attempt. A message that is not in the stream after that position was not stored. The repeat is
-- then stored and noted, so a first attempt that arrives later finds the note.

-- Maximum number of entries, and of payload bytes, that one call reads in a room. The gateway continues from there.
local SEARCH_ENTRIES, SEARCH_BYTES = 1000, 1048576
-- Number of entries of one read.
local SEARCH_STEP = 50

-- Searches the repeated messages of a room, from the earliest position that one of them names. They are in ARGV from
-- `at` to `last`, as publish.lua describes them. Returns a table: `ids` maps their ids to true, or to {seq, time} if
-- they were found; `searched` is the last seq that was searched, nil if messages before it are missing, of which one
-- may be a searched one; `is_end` if it is the last seq of all. Most calls of a script do not get here, so it creates
-- its functions itself.
local function find_repeats(stream, meta, at, last, words)
  -- Returns the seq up to which a stream has all that it had at a position, as StreamEnd::shares in model/stream.rs: a
  -- position of another epoch is valid up to the lowest fork since. A stale stream has had no message in this
  -- generation, so it ends where its fork will be. Any other one never ends before a position in its epoch.
  local function valid_seq(epoch, seq)
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

  -- Searches for `ids` after a seq. Returns `searched` and `is_end`.
  local function search(ids, after)
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

  local ids, after = {}, stream.seq
  stream.forks = redis.call('HGET', meta, 'forks') or ''
  for place = at, last, words do
    local epoch, seq = string.match(ARGV[place + 5], '^(%S*) (%d+)$')
    if seq and ARGV[place + 2] == '' then
      ids[ARGV[place + 3]] = true
      after = math.min(after, valid_seq(epoch, tonumber(seq)))
    end
  end
  local searched, is_end
  if next(ids) then
    searched, is_end = search(ids, after)
  end
  return { ids = ids, searched = searched, is_end = is_end, epoch = stream.epoch }
end
