#!lua flags=no-writes
-- ONLINE: reads a page of the online users in the order of their list scores. O(users of the page and their rooms).
--         List and rows are of one moment, so a rename hides no user.
-- KEYS: 1 generation, 2 leases, 3 online
-- ARGV: 1 base, 2 lowest score, 3 rows of this score to leave out, 4 maximum number of rows
-- Reply: {'OK', {nick key, score, row}..} with a row as in user_rows.lua, which is left out from a session on before
--        which ROOMS_MAX was reached
-- Called by Registry::users.
local reply = { 'OK' }
local nicks = redis.call('ZRANGEBYSCORE', KEYS[3], ARGV[2], '+inf', 'WITHSCORES', 'LIMIT', ARGV[3], ARGV[4])
for i = 1, #nicks, 2 do
  local is_begun = nicks[i + 1] ~= '0' and nicks[i + 1] == nicks[i - 1] and reply[#reply][3]
  local row = (rooms_read < ROOMS_MAX or is_begun) and user_row(nicks[i]) or nil
  reply[#reply + 1] = { nicks[i], nicks[i + 1], row }
end
return reply
