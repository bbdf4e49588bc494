#!lua flags=no-writes
-- ROOMS: reads rows of rooms for the API. O(rooms given).
-- KEYS: 1 generation, 2 leases
-- ARGV: 1 base, 2.. room keys
-- Reply: {'OK', row..} with {} for an unknown room, else {room as shown, member count, seq}
-- Called by Registry::room and rooms.
local rows = { 'OK' }
for i = 2, #ARGV do
  local display = redis.call('HGET', base .. 'room:' .. ARGV[i], 'display')
  rows[i] = display and { display, redis.call('HLEN', base .. 'members:' .. ARGV[i]), room_end(ARGV[i]) } or {}
end
return rows
