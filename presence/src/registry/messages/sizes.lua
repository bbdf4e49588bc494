-- SIZES: bounds the bytes of streams, and lists the largest ones. Needs prelude.lua. The memory arm bounds exactly:
-- `MemoryStream::push` in the presence crate's store/memory/streams.rs.
--
-- A meta counts in `bytes` the payload bytes that were appended in its life. Its `marks` are positions in that count,
-- oldest first: `<seq>:<bytes up to this message>`. All messages up to the first mark are gone. A mark is added each
-- time another sixteenth of a bound was appended, and only then is the stream cut, at a mark. So no publish reads
-- messages to bound their bytes, and a stream exceeds its bound by at most a sixteenth and a message. Messages from
-- before their meta are not counted; they are gone once the bound was appended.

local MARK_PARTS = 16
-- Maximum number of bytes between two marks, and that one call removes: 16 MiB of small messages take Redis 2 ms.
local CUT_BYTES_MAX = 16777216
-- Minimum number of messages between two marks, unless there are more bytes between them.
local MARK_MESSAGES_MIN = 64
-- Maximum number of streams in the list of the largest.
local LARGEST_MAX = 100

local function size_limits(messages, bytes)
  local part_messages = math.max(math.ceil(messages / MARK_PARTS), MARK_MESSAGES_MIN)
  local part_bytes = math.min(bytes / MARK_PARTS, CUT_BYTES_MAX)
  return { bytes = tonumber(bytes), part_bytes = part_bytes, part_messages = part_messages }
end

-- Returns the new marks of a stream, with one more if it is due after a message of this size; nil without any.
local function with_mark(marks, limits, seq, bytes, size)
  if bytes % limits.part_bytes < size or seq % limits.part_messages == 0 then
    return (marks or '') .. ' ' .. digits(seq) .. ':' .. digits(bytes)
  end
  return marks
end

-- Cuts a stream to its bound, which keeps the newest message, and lists its size under a name. A bound that was lowered
-- far takes several calls. To be called after messages with new marks were appended, and after messages were removed
-- for another reason. Most calls of a script do not get here, so it creates its functions itself.
local function bound_size(meta, stream, name, limits, seq, bytes, new_marks)
  -- Lists a stream by its bytes, and removes the smallest streams from a list that is too long.
  local function list_size(name, bytes)
    local list = base .. 'largest'
    redis.pcall('ZADD', list, digits(bytes), name)
    local count = redis.pcall('ZCARD', list)
    if type(count) == 'number' and count > LARGEST_MAX then
      local surplus = redis.pcall('ZRANGEBYSCORE', list, '-inf', '+inf', 'LIMIT', 0, count - LARGEST_MAX)
      redis.pcall('ZREM', list, unpack(surplus))
    end
  end

  -- Returns the marks in a text as {seq, bytes}, oldest first.
  local function read_marks(text)
    local marks = {}
    for seq, bytes in string.gmatch(text, '(%d+):(%d+)') do
      marks[#marks + 1] = { tonumber(seq), tonumber(bytes) }
    end
    return marks
  end

  local function write_marks(meta, marks, first)
    local words = {}
    for place = first, #marks do
      words[#words + 1] = digits(marks[place][1]) .. ':' .. digits(marks[place][2])
    end
    redis.pcall('HSET', meta, 'marks', table.concat(words, ' '))
  end

  local marks = read_marks((redis.pcall('HMGET', meta, 'marks')[1] or '') .. (new_marks or ''))
  local oldest = redis.pcall('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  local first = oldest and tonumber(string.match(oldest[1], '^%d+')) or 0
  local gone = 0
  while marks[gone + 1] and marks[gone + 1][1] < first do
    gone = gone + 1
  end
  local cut = gone
  local function size()
    return bytes - (cut > 0 and marks[cut][2] or 0)
  end
  local size_before = size()
  local function may_cut(mark)
    return mark[1] < seq and (cut == gone or size_before - bytes + mark[2] <= CUT_BYTES_MAX)
  end
  while size() > limits.bytes and marks[cut + 1] and may_cut(marks[cut + 1]) do
    cut = cut + 1
  end
  if cut > gone then
    redis.pcall('XTRIM', stream, 'MINID', '=', digits(marks[cut][1] + 1) .. '-0')
  end
  if cut > 0 or new_marks then
    write_marks(meta, marks, math.max(cut, 1))
    list_size(name, size())
  end
end
