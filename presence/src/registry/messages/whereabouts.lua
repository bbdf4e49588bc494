-- WHEREABOUTS: finds the gateway of a nick. Needs prelude.lua.

-- Returns the session that has a nick or had it last, if any, its gateway if the session is online, and its `nick`,
-- `token`, `epoch`, `generation`, `seq`, `time` and `bytes`. A session that was renamed is reached under its present
-- nick. With `known`, looks for that session instead.
local function whereabouts(record, nick, known)
  local latest, owner, detached = unpack(redis.call('HMGET', record, 'session', 'owner', 'detached'))
  local session = known or latest
  if not session then
    return nil
  end
  local details = redis.call('HMGET', base .. 'session:' .. session, 'nick', 'token', 'epoch', 'generation', 'seq',
    'time', 'bytes')
  if details[1] and details[1] ~= nick then
    owner, detached = unpack(redis.call('HMGET', base .. 'nick:' .. details[1], 'owner', 'detached'))
  end
  local gateway, owned_by = split_token(owner or '')
  return session, owned_by == session and not detached and serves(gateway) and gateway, details
end
