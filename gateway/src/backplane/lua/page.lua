#!lua flags=allow-oom
-- PAGE: reads the end of a stream and its entries after a position in one step, so the whole reply is of one epoch.
-- Needs entries.lua.
-- KEYS: 1 generation, 2 meta, 3 stream
-- ARGV: 1 an unused epoch, 2 the first seq of the page, 3 maximum number of entries, 4 lifetime in seconds of a meta
--       without a lifetime of its own, 5 the same if there is no stream either: a room may just have been forgotten,
--       6 maximum number of payload bytes
-- Reply: {epoch, seq of the newest message, forks, {entry..}, 1 if more entries follow, else 0}, or the error
--        RECOVERING
-- Called by RedisBackplane::read_after and read_ends. It writes if it is the first to touch the stream in a generation:
-- readers learn of a loss even if nothing is published.
local _, meta, stream = unpack(KEYS)
local number, _, is_noticed = generation()
if not is_noticed then
  return { err = 'RECOVERING the store has not noticed its restart yet' }
end
local is_new = redis.call('EXISTS', meta) == 0
local epoch, seq, _, forks = touch(meta, stream, number, ARGV[1])
if is_new then
  redis.call('EXPIRE', meta, redis.call('EXISTS', stream) == 1 and ARGV[4] or ARGV[5])
end
local entries, more = {}, false
if ARGV[3] ~= '0' then
  entries, more = read_page('XRANGE', stream, ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[6]))
end
return { epoch, digits(seq), forks, entries, more and 1 or 0 }
