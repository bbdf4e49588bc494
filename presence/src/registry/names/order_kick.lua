-- Orders a gateway to end a session. Shared by the scripts that kick and end sessions. Needs owners.lua.

-- Orders the gateway of a claim to end its session: at once over its channel, and by its mailbox in case the channel
-- message is lost. Does nothing if that gateway does not serve.
local function order_kick(owner)
  local incarnation, session = incarnation_of(owner), session_of(owner)
  if not serves(incarnation) then
    return
  end
  redis.call('RPUSH', base .. 'mailbox:' .. incarnation, '{"kick":"' .. session .. '"}')
  redis.call('PUBLISH', base .. 'ch:gw:' .. incarnation, 'K ' .. session)
end
