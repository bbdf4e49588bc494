-- ENTRIES: reads pages of streams that are bounded in messages and bytes. Needs nothing. The twin in memory is
-- `MemoryStream::page` in the presence crate's store/memory/streams.rs.

-- Maximum number of entries of one read. Reads begin small and grow, so large entries beyond the page cost little.
local STEP_MAX = 32

-- The commands by name, so that a test finds every command that the scripts use.
local READS = {
  XRANGE = function(...) return redis.call('XRANGE', ...) end,
  XREVRANGE = function(...) return redis.call('XREVRANGE', ...) end,
}

-- Returns the entries of a stream from an id on, in the direction of the command (XRANGE or XREVRANGE), and whether
-- more follow. Bytes are those of the payloads; the first entry always fits.
local function read_page(command, stream, from, messages, bytes)
  local last = command == 'XRANGE' and '+' or '-'
  local page, size, step = {}, 0, 2
  while true do
    local count = math.min(step, messages + 1 - #page)
    local entries = READS[command](stream, from, last, 'COUNT', count)
    for _, entry in ipairs(entries) do
      size = size + #(entry[2][4] or '')
      if #page > 0 and (#page >= messages or size > bytes) then
        return page, true
      end
      page[#page + 1] = entry
    end
    if #entries < count then
      return page, false
    end
    from = '(' .. entries[count][1]
    step = math.min(step * 2, STEP_MAX)
  end
end
