-- Finds a session that was renamed by its former nick. Needs the prelude and owners.lua. The memory twin is in
-- names/memory.rs.

-- Returns the present nick of the session that had this one last, if it is online; otherwise the nick itself. Once
-- another session has the nick, that one is meant.
local function present_nick(nick)
  local session = redis.call('HGET', base .. 'nick:' .. nick, 'session')
  local present = session and redis.call('HGET', base .. 'session:' .. session, 'nick')
  local owner = present and redis.call('HGET', base .. 'nick:' .. present, 'owner')
  return owner and session_of(owner) == session and present or nick
end
