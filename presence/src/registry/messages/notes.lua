-- NOTES: remembers messages, so that a later attempt makes no second copy. Needs prelude.lua.
--
-- A note is a field of a hash, the bucket of its time: `<seq> <time> <message id>`. A bucket is consulted in its own
-- span and the next one, then it expires whole. A full bucket refuses new messages and forgets none early. Clients'
-- keys have buckets of their own, because clients retry much later than gateways.

-- Returns the buckets of the present span and the one before.
local function bucket(name, span_ms)
  local span = math.floor(now / span_ms)
  local newer, older = base .. name .. ':' .. span, base .. name .. ':' .. (span - 1)
  return { newer = newer, older = older, span_ms = span_ms, rest_ms = (span + 1) * span_ms - now, known = {}, notes = {} }
end

-- Returns the name of the buckets for the keys of a call: those of applications are apart, so neither kind takes the
-- space of the other. The messages of a call are of one kind; `token` is the owner of one.
local function key_buckets(token)
  return string.find(token, 'api/', 1, true) == 1 and 'api-idempotency' or 'idempotency'
end

-- Returns the field of a client's key: its scope, then the key. The key stands last and the other parts contain no bar,
-- so every field is unambiguous. `key` begins with a mark: '=', or '?' if the sender's share of the bucket is used up.
local function key_field(target, session, key)
  return target .. '|' .. session .. '|' .. string.sub(key, 2)
end

-- Reads the notes of these fields.
local function recall(seen, fields)
  for _, hash in ipairs({ seen.newer, seen.older }) do
    for place, answer in ipairs(redis.call('HMGET', hash, unpack(fields))) do
      seen.known[fields[place]] = seen.known[fields[place]] or answer
    end
  end
end

-- Returns the buckets of the present span with the notes of these fields; nil without fields.
local function recalled(name, span_ms, fields)
  if #fields == 0 then
    return nil
  end
  local seen = bucket(name, span_ms)
  recall(seen, fields)
  return seen
end

-- Returns the answer to the first message with this field, if there was one and `recall` has read it.
local function first_answer(seen, field)
  local answer = seen.known[field]
  if not answer then
    return nil
  end
  local seq, time, id = string.match(answer, '^(%d+) (%d+) (.*)$')
  return { 'duplicate', tonumber(seq), tonumber(time), id }
end

-- Returns the refusal of a new field if the bucket or the sender's share of it is full, with the milliseconds until the
-- bucket is empty. A republished message was counted before, so it always fits.
local function exhausted(seen, key)
  if is_republish then
    return nil
  end
  seen.count = seen.count or redis.call('HLEN', seen.newer)
  if seen.count + #seen.notes / 2 >= tonumber(ARGV[3]) or string.sub(key, 1, 1) == '?' then
    return { 'exhausted', 0, seen.rest_ms, '' }
  end
end

-- Notes a message, with its seq and time in digits; `remember` writes the notes.
local function note(seen, field, seq, time, id)
  local answer, notes = seq .. ' ' .. time .. ' ' .. id, seen.notes
  seen.known[field] = answer
  notes[#notes + 1] = field
  notes[#notes + 1] = answer
end

local function remember(seen)
  if not seen or #seen.notes == 0 then
    return
  end
  local count = seen.count or redis.pcall('HLEN', seen.newer)
  redis.pcall('HSET', seen.newer, unpack(seen.notes))
  if count == 0 then
    redis.pcall('EXPIRE', seen.newer, math.floor(seen.span_ms * 2.2 / 1000))
  end
end
