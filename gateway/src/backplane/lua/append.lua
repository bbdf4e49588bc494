-- APPEND: appends entries to streams under explicit ids, and guards the steps of a call against each other. Needs
-- prelude.lua and sizes.lua.

-- True once the present step has stored an entry.
local is_written

-- Reads the end of a stream that is ahead of its meta. Without such an entry the refusal has another reason.
local function read_end(stream, refusal)
  local newest = redis.call('XREVRANGE', stream.key, '+', digits(stream.seq + 1), 'COUNT', 1)[1]
  if not newest then
    error(refusal)
  end
  local written = newest[2][1] == 'time' and tonumber(newest[2][2]) or 0
  stream.seq, stream.time = tonumber(string.match(newest[1], '^%d+')), math.max(stream.time, written)
end

local function try_append(stream, payload)
  return redis.pcall('XADD', stream.key, 'MAXLEN', '~', stream.bound, digits(stream.seq + 1) .. '-0', 'time',
    digits(stream.time), 'payload', payload)
end

-- Appends an entry after the `seq` of a stream, with its `time` and its `bound` in entries, and counts its bytes. Redis
-- refuses an id that is not above the stream's last: the stream is ahead of its meta, and only then its end is read.
local function append(stream, payload)
  local added = try_append(stream, payload)
  if added.err and not is_written then
    read_end(stream, added)
    added = try_append(stream, payload)
  end
  if added.err then
    error(added)
  end
  is_written, stream.seq, stream.bytes = true, stream.seq + 1, stream.bytes + #payload
  add_mark(stream, payload)
end

-- Returns the answer of Redis in an error that was caught, with its code. The error is a text or a table, depending on
-- the server.
local function error_text(caught)
  local text = type(caught) == 'table' and caught.err or caught
  return string.match(text, '^%u+ ') and text or 'ERR ' .. text
end

-- Runs the step of one target. A step that fails after a write is answered with 'unknown', before it with 'apart'. The
-- step of an only target fails with its own error.
local function reply_of(is_only, step, ...)
  is_written = false
  local done, reply = pcall(step, ...)
  if done then
    return reply
  elseif is_written then
    return 'unknown'
  end
  return is_only and { err = error_text(reply) } or 'apart'
end
