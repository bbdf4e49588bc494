#!lua flags=allow-oom
-- Reads where a log ends and what it keeps after a position, in one step: everything in the answer is of one epoch.
-- KEYS: 1 generation, 2 meta, 3 log
-- ARGV: 1 an unused epoch, 2 the first seq of the page, 3 most messages of it, 4 seconds that a meta without a life of its
--       own is kept
-- Reply: {epoch, seq of the newest message, forks, {entry..}}, or the error RECOVERING
-- Called by RedisBackplane::missed and tops. It writes when it is the first to touch the log in a generation: those who
-- only listen are told what was lost as well.
local _, meta, log = unpack(KEYS)
local number, _, is_noticed = generation()
if not is_noticed then
  return { err = 'RECOVERING the store has not noticed its restart yet' }
end
local is_new = redis.call('EXISTS', meta) == 0
local epoch, seq, _, forks = touch(meta, log, number, ARGV[1])
if is_new then
  redis.call('EXPIRE', meta, ARGV[4])
end
local entries = ARGV[3] ~= '0' and redis.call('XRANGE', log, ARGV[2], '+', 'COUNT', ARGV[3]) or {}
return { epoch, digits(seq), forks, entries }
