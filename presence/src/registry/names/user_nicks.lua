-- Binds nicks to users: the field `user` of a nick record, and an index of each user's nicks. A reader of the index
-- compares the field. Shared by the scripts that claim, free and restore nicks. Needs the prelude. The memory twin is
-- in store/memory/user_nicks.rs.

-- Maximum number of nicks that are bound to one user, unless more are owned.
local USER_NICKS_MAX = 8

-- Returns the key of the index of a user's nicks, scored by the time of their claim. The twin of the encoding is
-- UserId::key.
local function user_nicks(user)
  local encoded = string.gsub(user, '[^A-Za-z0-9._-]', function(byte)
    return string.format('%%%02X', string.byte(byte))
  end)
  return base .. 'user-nicks:' .. encoded
end

-- Returns true if a nick is owned and bound to this user.
local function is_owned_by_user(nick, user)
  local owner, bound = unpack(redis.call('HMGET', base .. 'nick:' .. nick, 'owner', 'user'))
  return owner and bound == user
end

-- Ends the binding of a nick.
local function unbind(nick, user)
  redis.call('HDEL', base .. 'nick:' .. nick, 'user')
  redis.call('ZREM', user_nicks(user), nick)
end

-- Binds an owned nick to a user. One nick too many replaces the oldest one that is not owned. An owned nick never
-- leaves the index: beyond the maximum it has owned ones only, so looking at the oldest of them is enough.
local function bind(nick, user)
  local list = user_nicks(user)
  redis.call('HSET', base .. 'nick:' .. nick, 'user', user)
  redis.call('ZADD', list, now(), nick)
  redis.call('PERSIST', list)
  if redis.call('ZCARD', list) <= USER_NICKS_MAX then
    return
  end
  for _, other in ipairs(redis.call('ZRANGEBYSCORE', list, 0, '+inf', 'LIMIT', 0, USER_NICKS_MAX + 1)) do
    if not is_owned_by_user(other, user) then
      if redis.call('HGET', base .. 'nick:' .. other, 'user') == user then
        redis.call('HDEL', base .. 'nick:' .. other, 'user')
      end
      redis.call('ZREM', list, other)
      return
    end
  end
end

-- Keeps the binding of a freed nick, unless the index has more than the maximum. The index of a user without an owned
-- nick expires with the record of the one that was freed last.
local function free_user_nick(nick, user)
  local list = user_nicks(user)
  if redis.call('ZCARD', list) > USER_NICKS_MAX or not redis.call('ZSCORE', list, nick) then
    return unbind(nick, user)
  end
  for _, other in ipairs(redis.call('ZRANGEBYSCORE', list, 0, '+inf')) do
    if is_owned_by_user(other, user) then
      return
    end
  end
  redis.call('EXPIRE', list, RETENTION)
end
