#!lua flags=no-writes
-- ROOMS: reads rows of rooms for the API. O(rooms given).
-- KEYS: 1 generation, 2 leases
-- ARGV: 1 base, 2.. room keys
-- Reply: {'OK', row..} with {} for an unknown room, else {room as shown, member count, seq}
-- Called by Registry::room and rooms.
local rows = { 'OK' }
for i = 2, #ARGV do
  local meta, log, members = base .. 'room:' .. ARGV[i], base .. 'log:' .. ARGV[i], base .. 'members:' .. ARGV[i]
  local display = redis.call('HGET', meta, 'display')
  rows[i] = display and { display, redis.call('HLEN', members), stream_end(meta, log) } or {}
end
return rows
