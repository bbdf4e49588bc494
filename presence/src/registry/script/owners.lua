-- Compares owner tokens. Shared by the scripts that claim, join, leave and free. Needs the prelude.

local function session_of(token)
  return string.match(token, '/([^/]+)/')
end

local function fence_of(token)
  return tonumber(string.match(token, '%d+$'))
end

-- Returns true if a claim equals another one, or is a later one of its session.
local function succeeds(token, other)
  return session_of(token) == session_of(other) and fence_of(token) >= fence_of(other)
end

-- Returns the leave reason of a gateway's users: gateway_lost if its lease is fenced or unknown, else closed.
local function leave_reason(incarnation)
  local state = redis.call('HGET', KEYS[2], incarnation)
  return (state and state ~= 'fenced') and 'closed' or 'gateway_lost'
end
