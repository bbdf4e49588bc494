#!lua flags=allow-oom
-- LARGEST: reads the list of the largest streams, and removes those that have expired from it. O(list).
-- KEYS: 1 generation, 2 leases, 3 largest
-- ARGV: 1 base, 2 maximum number of rows
-- Reply: {'OK', {bytes of the largest room, bytes of all listed rooms, the same two of inboxes}, row..}; a row of each
--        stream, the largest first: {'room' or 'inbox', room key or session id, room as shown or nick key or '', bytes,
--        messages, seconds until it expires or -1}
-- Called by RedisRegistry::largest_streams. The list is written by messages/sizes.lua.
local list, rows_max = KEYS[3], tonumber(ARGV[2])
local largest, total, rows = { room = 0, inbox = 0 }, { room = 0, inbox = 0 }, {}

local function names(entry)
  local kind, id = string.sub(entry, 1, 1), string.sub(entry, 2)
  if kind == '#' then
    return 'room', id, base .. 'room:' .. id, base .. 'log:' .. id, 'display'
  end
  return 'inbox', id, base .. 'session:' .. id, base .. 'inbox:' .. id, 'nick'
end

enter_generation()
local entries = redis.call('ZRANGEBYSCORE', list, '-inf', '+inf', 'WITHSCORES')
for place = #entries - 1, 1, -2 do
  local kind, id, meta, stream, name = names(entries[place])
  if redis.call('EXISTS', stream) == 1 then
    local bytes = tonumber(entries[place + 1])
    largest[kind], total[kind] = math.max(largest[kind], bytes), total[kind] + bytes
    if #rows < rows_max then
      local oldest = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
      local messages = oldest and stream_end(meta, stream) - tonumber(string.match(oldest[1], '^%d+')) + 1 or 0
      rows[#rows + 1] =
        { kind, id, redis.call('HGET', meta, name) or '', bytes, messages, redis.call('TTL', stream) }
    end
  else
    redis.pcall('ZREM', list, entries[place])
  end
end
return { 'OK', { largest.room, total.room, largest.inbox, total.inbox }, unpack(rows) }
