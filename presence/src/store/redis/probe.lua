#!lua
-- PROBE: is refused exactly when a publish would be. Else it describes the server and the rights of this user.
-- KEYS: none
-- ARGV: 1 base
-- Reply: {{command that the user may not run..}, INFO}
-- Called by RedisStore::watch, once a second from every process. It reads and writes no key.
local key, channel = ARGV[1] .. 'probe', ARGV[1] .. 'ch:probe'

-- Commands whose first argument is their only checked key.
local ON_KEY = {
  'EXISTS', 'DEL', 'EXPIRE', 'PEXPIREAT', 'TTL', 'PERSIST', 'GET', 'SET', 'SETNX', 'INCR',
  'HGET', 'HSET', 'HSETNX', 'HDEL', 'HEXISTS', 'HGETALL', 'HINCRBY', 'HKEYS', 'HLEN', 'HMGET',
  'LRANGE', 'LTRIM', 'RPUSH',
  'SADD', 'SREM', 'SCARD', 'SISMEMBER', 'SMEMBERS', 'SRANDMEMBER', 'SSCAN',
  'XADD', 'XDEL', 'XRANGE', 'XREVRANGE', 'XTRIM',
  'ZADD', 'ZREM', 'ZCARD', 'ZSCORE', 'ZRANGEBYSCORE', 'ZRANGEBYLEX',
}
local OTHERS = {
  { 'HELLO' }, { 'PING' }, { 'UNWATCH' }, { 'INFO' }, { 'TIME' },
  { 'EVALSHA', 'x', '1', key }, { 'SCRIPT', 'LOAD', 'x' },
  { 'PUBLISH', channel, 'x' }, { 'SUBSCRIBE', channel }, { 'UNSUBSCRIBE', channel },
  { 'XREAD', 'STREAMS', key, '0' }, { 'XINFO', 'STREAM', key },
}

-- Compatible servers may lack the check, or one of the commands: then the call itself shows it.
local function is_refused(...)
  if not redis.acl_check_cmd then
    return false
  end
  local is_checked, is_allowed = pcall(redis.acl_check_cmd, ...)
  return is_checked and not is_allowed
end

local refused = {}
for _, command in ipairs(ON_KEY) do
  if is_refused(command, key) then
    refused[#refused + 1] = command
  end
end
for _, call in ipairs(OTHERS) do
  if is_refused(unpack(call)) then
    refused[#refused + 1] = call[1]
  end
end
local info = ''
if not is_refused('INFO') then
  info = redis.call('INFO', 'server') .. redis.call('INFO', 'memory') .. redis.call('INFO', 'replication')
end
return { refused, info }
