-- WHEREABOUTS: finds the gateway of a nick. Needs prelude.lua.

-- Returns the session that has a nick or had it last, if any, and its gateway if the session is online. A session that
-- was renamed is reached under its present nick. With `known`, looks for that session instead.
local function whereabouts(record, nick, known)
  local session = known or redis.call('HGET', record, 'session')
  if not session then
    return nil
  end
  local current = redis.call('HGET', base .. 'session:' .. session, 'nick') or nick
  local owner, detached = unpack(redis.call('HMGET', base .. 'nick:' .. current, 'owner', 'detached'))
  local gateway, owned_by = split_token(owner or '')
  return session, owned_by == session and not detached and serves(gateway) and gateway
end
