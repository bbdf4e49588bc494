#!lua flags=allow-oom
-- DELETE_MESSAGES: deletes the messages of a room, or one of them. Their seqs are not used again: readers find a gap.
-- KEYS: 1 generation, 2 leases, 3 room meta, 4 room stream
-- ARGV: 1 base, 2 room key, 3 seq or '' for all
-- Reply: {'OK', number of deleted messages}; {'NO_SUCH_ROOM'}
-- Called by Registry::delete_messages.
local _, _, meta, log = unpack(KEYS)
local _, room, seq = unpack(ARGV)

enter_generation()
require_open()
if redis.call('EXISTS', meta) == 0 then
  return { 'NO_SUCH_ROOM' }
end
-- The end of a stream that is ahead of its meta is known by its messages only.
local newest = string.format('%d', stream_end(meta, log))
redis.call('HSET', meta, 'seq', newest)
if seq ~= '' then
  -- Its bytes are counted until the stream is cut behind it.
  return { 'OK', redis.call('XDEL', log, seq .. '-0') }
end
local deleted = redis.call('XTRIM', log, 'MAXLEN', '=', 0)
-- As in messages/sizes.lua: everything up to the first mark is gone.
redis.call('HSET', meta, 'marks', newest .. ':' .. (redis.call('HGET', meta, 'bytes') or '0'))
redis.call('ZREM', base .. 'largest', '#' .. room)
return { 'OK', deleted }
