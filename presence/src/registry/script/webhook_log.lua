-- WEBHOOK LOG: appends events to the log that webhooks are sent from. Part of every script that logs an event, so an
-- event is logged in the same step as its cause. Needs only ARGV[1], the base of all keys. Reader: registry/webhooks.
--
-- `wanted` is the field `webhooks` of the generation record, nil without webhooks: '<maximum number of entries>
-- <maximum number of bytes> ', then for each kind '<kind> ', and for messages 'message:<beginning of the room keys> '.
-- The ids are '<number>-0', without holes, so a reader can count the entries that it missed. A log that cannot be
-- written changes nothing else.

-- Parts of the maximum number of bytes. The log is cut by whole parts, and the dead letters of a webhook have one at
-- most.
local WEBHOOK_LOG_PARTS = 16

-- Returns true if a webhook wants events of a kind.
local function is_wanted(wanted, kind)
  return wanted and string.find(wanted, ' ' .. kind .. ' ', 1, true) ~= nil
end

-- Returns true if a webhook may want the messages of a room.
local function has_wanted_room(wanted, room)
  for beginning in string.gmatch(wanted or '', ' message:(%S*)') do
    if string.sub(room, 1, #beginning) == beginning then
      return true
    end
  end
  return false
end

-- Returns the bytes that an event counts, without those of further fields.
local function event_bytes(kind, time, at, data)
  return #kind + #time + #at + #data + 64
end

-- Appends an event; `time` is in digits. `at` is its position in another stream or a further word. Further fields and
-- values may follow. Returns true if it is in the log.
local function log_for_webhooks(wanted, kind, time, at, data, ...)
  local log, state = ARGV[1] .. 'webhook-events', ARGV[1] .. 'webhook-log'
  local entries_max, bytes_max = string.match(wanted, '^(%d+) (%d+)')
  local size = event_bytes(kind, time, at, data)
  local number, bytes = redis.pcall('HINCRBY', state, 'count', 1), redis.pcall('HINCRBY', state, 'bytes', size)
  if type(number) ~= 'number' or type(bytes) ~= 'number' then
    return false
  end
  local id = string.format('%d-0', number)
  local added = redis.pcall('XADD', log, 'MAXLEN', '~', entries_max, id, 'kind', kind, 'time', time, 'at', at, 'data', data,
    ...)
  local part = bytes_max / WEBHOOK_LOG_PARTS
  for mark = math.floor((bytes - size) / part) + 1, math.floor(bytes / part) do
    local oldest = redis.pcall('HGET', state, 'mark ' .. (mark - WEBHOOK_LOG_PARTS))
    if type(oldest) == 'string' then
      redis.pcall('XTRIM', log, 'MINID', oldest)
      redis.pcall('HDEL', state, 'mark ' .. (mark - WEBHOOK_LOG_PARTS))
    end
    redis.pcall('HSET', state, 'mark ' .. mark, id)
  end
  return added == id
end
