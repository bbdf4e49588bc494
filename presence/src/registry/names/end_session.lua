-- Ends sessions for good. Shared by the scripts that release nicks and expire sessions. Needs owners.lua and
-- order_kick.lua. The memory twin is in names/memory.rs.

-- Returns true if a reason ends a session for good. Its twin is OfflineReason::is_final.
local function is_final(reason)
  return reason == 'kicked' or reason == 'banned'
end

-- Revokes the tokens of a session: no client can resume it, and nothing new waits in its inbox.
local function revoke_tokens(session)
  local record = base .. 'session:' .. session
  if redis.call('EXISTS', record) == 1 then
    redis.call('HSET', record, 'token', '')
    redis.call('HDEL', record, 'previous', 'was')
  end
end

-- Orders the gateway to which a session has moved to end it.
local function pursue(session)
  local nick = redis.call('HGET', base .. 'session:' .. session, 'nick')
  local owner = nick and redis.call('HGET', base .. 'nick:' .. nick, 'owner')
  if owner and session_of(owner) == session then
    order_kick(owner)
  end
end
