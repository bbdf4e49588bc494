#!lua flags=no-writes
-- HISTORY: reads a page of a room's history. Needs entries.lua.
-- KEYS: 1 stream
-- ARGV: 1 XRANGE for oldest first or XREVRANGE for newest first, 2 the first seq, or an end of the stream as the
--       command names it, 3 maximum number of entries, 4 maximum number of payload bytes
-- Reply: {{entry..}, 1 if more follow in that direction, else 0}
-- Called by RedisBackplane::history.
local entries, more = read_page(ARGV[1], KEYS[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]))
return { entries, more and 1 or 0 }
