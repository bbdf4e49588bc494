-- Frees nicks. Shared by the scripts that release, claim and reap; each compares the owner first. Needs the prelude,
-- owners.lua and user_nicks.lua. The memory twin is in names/memory.rs and store/memory/leases.rs.

-- Maximum number of nicks examined for one skeleton; more than share one by chance.
local LOOKALIKES_MAX = 16

-- Lets a skeleton expire with the last hold of its nicks. If one of them is owned, the next claim removes stale
-- entries.
local function age_lookalikes(skeletons)
  local last = 0
  local nicks = redis.call('ZRANGEBYSCORE', skeletons, 0, 1, 'LIMIT', 0, LOOKALIKES_MAX)
  if #nicks == 0 then
    return
  end
  for _, nick in ipairs(nicks) do
    local owner, held_until = unpack(redis.call('HMGET', base .. 'nick:' .. nick, 'owner', 'held_until'))
    if owner then
      return
    end
    last = math.max(last, tonumber(held_until) or 0)
  end
  if #nicks < LOOKALIKES_MAX then
    redis.call('PEXPIREAT', skeletons, string.format('%.0f', last))
  end
end

-- Returns the keys of the look-alikes of a nick. `skeletons` are the one or two skeletons that its record names,
-- separated by a space.
local function skeleton_keys(skeletons)
  local keys = {}
  for skeleton in string.gmatch(skeletons, '%S+') do
    keys[#keys + 1] = base .. 'skeleton:' .. skeleton
  end
  return keys
end

-- Removes a nick from the look-alikes of these skeletons.
local function unindex(nick, skeletons)
  for _, sharing in ipairs(skeleton_keys(skeletons)) do
    redis.call('ZREM', sharing, nick)
    age_lookalikes(sharing)
  end
end

-- Frees a nick that `token` owns; with `held` it stays reserved for the session until the hold ends. The record remains
-- for the retention time, so its user is offline and not unknown. Returns the nick as shown, and the user that it is
-- bound to.
local function free_nick(nick, token, held)
  local record = base .. 'nick:' .. nick
  local incarnation, session = incarnation_of(token), session_of(token)
  local display, skeletons, user = unpack(redis.call('HMGET', record, 'display', 'skeleton', 'user'))
  if held then
    redis.call('HSET', record, 'held', session)
    redis.call('HDEL', record, 'owner', 'since', 'status', 'detached')
    for _, sharing in ipairs(skeleton_keys(skeletons or '')) do
      age_lookalikes(sharing)
    end
  else
    redis.call('HDEL', record, 'owner', 'since', 'status', 'detached', 'held', 'held_until')
    unindex(nick, skeletons or '')
  end
  redis.call('EXPIRE', record, RETENTION)
  redis.call('ZREM', base .. 'online', nick)
  redis.call('SREM', base .. 'owned-nicks:' .. incarnation, nick)
  -- After a rename the session continues under its other nick.
  if redis.call('HGET', base .. 'session:' .. session, 'nick') == nick then
    for _, kind in ipairs({ 'session:', 'inbox:', 'session-rooms:' }) do
      redis.call('EXPIRE', base .. kind .. session, RETENTION)
    end
  end
  if user then
    free_user_nick(nick, user)
  end
  return display or nick, user
end

-- Logs that a nick went offline.
local function log_offline(display, reason)
  log_event('offline', '"nick":%s,"reason":"%s"', cjson.encode(display), reason, now())
end
