#!lua
-- STATUS: records a user's status and announces it to the given rooms. O(rooms given).
-- KEYS: 1 generation, 2 leases, 3 nick record
-- ARGV: 1 base, 2 owner token, 3 nick key, 4 JSON of the status, 5 JSON of the member info, 6.. room keys
-- Reply: {'OK'}; {'NO'} if the caller does not own the nick; {'FENCED'}
-- Called by Registry::set_status.
local _, _, record = unpack(KEYS)
local _, token, nick, status, info = unpack(ARGV)

enter_generation()
require_open()
if not serves(incarnation_of(token)) then
  return { 'FENCED' }
end
if redis.call('HGET', record, 'owner') ~= token then
  return { 'NO' }
end
redis.call('HSET', record, 'status', status)
for i = 6, #ARGV do
  local room = ARGV[i]
  local before = redis.call('HGET', base .. 'members:' .. room, nick)
  if before and split_record(before) == token and before ~= token .. ' ' .. info then
    redis.call('HSET', base .. 'members:' .. room, nick, token .. ' ' .. info)
    announce(room, '{"status":[' .. info .. ']}')
  end
end
return { 'OK' }
