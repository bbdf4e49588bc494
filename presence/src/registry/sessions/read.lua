#!lua flags=allow-oom
-- READ: records a client's read position in its inbox: never back, never past the end.
-- KEYS: 1 generation, 2 leases, 3 session, 4 inbox
-- ARGV: 1 base, 2 seq
-- Reply: {'OK', the position that is kept}; {'NO'} if there is no such session
-- Called by Registry::read.
local _, _, session_record, inbox = unpack(KEYS)

enter_generation()
local known, before = unpack(redis.call('HMGET', session_record, 'nick', 'read'))
if not known then
  return { 'NO' }
end
local kept = tonumber(before) or 0
local read = math.min(tonumber(ARGV[2]), stream_end(session_record, inbox))
if read > kept then
  kept = read
  redis.call('HSET', session_record, 'read', string.format('%.0f', read))
end
return { 'OK', string.format('%.0f', kept) }
