#!lua flags=no-writes
-- RENAMED: finds the present nick of a session by its former one.
-- KEYS: 1 generation, 2 leases
-- ARGV: 1 base, 2 nick key
-- Reply: {'OK', the present nick as shown, or '' if the nick itself is meant}
-- Called by Registry::renamed.
local nick = ARGV[2]

local present = present_nick(nick)
return { 'OK', present ~= nick and redis.call('HGET', base .. 'nick:' .. present, 'display') or '' }
