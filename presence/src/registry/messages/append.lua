-- APPEND: appends entries to streams under explicit ids, and guards the steps of a call against each other. Needs
-- prelude.lua.

-- True once the present step has stored an entry.
local is_written

local function try_append(stream, bound, written, stamp, payload)
  return redis.pcall('XADD', stream, 'MAXLEN', bound.trim, bound.messages, written .. '-0', 'time', stamp, 'payload',
    payload)
end

-- Appends an entry after a seq of a stream. Its bound has `messages` and `trim`: '~' for blocks, '=' for an exact one.
-- `stamp` is its time in digits. Returns its seq, the seq in digits, its time and the time in digits. Redis refuses an
-- id that is not above the stream's last: the stream is ahead of its meta, and only then its end is read. Without such
-- an end the refusal has another reason.
local function append(stream, bound, seq, time, stamp, payload)
  local written = digits(seq + 1)
  local added = try_append(stream, bound, written, stamp, payload)
  if added.err and not is_written then
    local newest = redis.call('XREVRANGE', stream, '+', written, 'COUNT', 1)[1]
    if not newest then
      error(added)
    end
    seq = tonumber(string.match(newest[1], '^%d+'))
    time = math.max(time, newest[2][1] == 'time' and tonumber(newest[2][2]) or 0)
    written, stamp = digits(seq + 1), digits(time)
    added = try_append(stream, bound, written, stamp, payload)
  end
  if added.err then
    error(added)
  end
  is_written = true
  return seq + 1, written, time, stamp
end

-- Completes the reply of a step of which not all messages were stored: `answers` has the verdicts of those by place.
-- The others have the seqs after `seq`.
local function numbered(reply, seq, answers, count)
  local head = #reply
  for place = 1, count do
    if not answers[place] then
      seq = seq + 1
    end
    reply[head + place] = answers[place] or seq
  end
  return reply
end

-- Runs the step of one target. A step that fails after a write is answered with 'unknown', before it with 'apart'. The
-- step of an only target fails with its own error: the answer of Redis, with its code. Depending on the server it is
-- caught as a text or a table.
local function reply_of(is_only, step, ...)
  is_written = false
  local done, reply = pcall(step, ...)
  if done then
    return reply
  elseif is_written then
    return 'unknown'
  elseif not is_only then
    return 'apart'
  end
  local text = type(reply) == 'table' and reply.err or reply
  return { err = string.match(text, '^%u+ ') and text or 'ERR ' .. text }
end
