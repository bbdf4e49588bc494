#!lua flags=no-writes
-- MEMBERS: reads a page of a room's members in the order of their list scores. O(members of the page). List and records
--          are of one moment, so a rename hides no member.
-- KEYS: 1 generation, 2 leases, 3 members, 4 member-list
-- ARGV: 1 base, 2 lowest score, 3 rows of this score to leave out, 4 maximum number of rows
-- Reply: {'OK', {nick key, score, member record or '' if its gateway is fenced}..}
-- Called by Registry::members.
local reply = { 'OK' }
local nicks = redis.call('ZRANGEBYSCORE', KEYS[4], ARGV[2], '+inf', 'WITHSCORES', 'LIMIT', ARGV[3], ARGV[4])
for i = 1, #nicks, 2 do
  local record = redis.call('HGET', KEYS[3], nicks[i])
  local state = record and redis.call('HGET', KEYS[2], incarnation_of(record))
  reply[#reply + 1] = { nicks[i], nicks[i + 1], state and state ~= 'fenced' and record or '' }
end
return reply
