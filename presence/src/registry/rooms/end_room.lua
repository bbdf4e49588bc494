-- Ends rooms without members. Shared by the scripts that leave and reap. Needs the prelude. The memory twin is in
-- rooms/memory.rs.

-- The seq from which a room is not quiet, as in publish.lua.
local BUSY_SEQ = 3

-- Ends a room without members, otherwise does nothing. Nothing of a room that no member has spoken in is left: its
-- epoch covers no message. The others stay for clients that return with a position: for the retention time, or for
-- that of quiet rooms while they have had fewer than three messages. A moderated room stays for the retention time,
-- with its roles, bans and invites. Of a room that the API has created only the messages are deleted.
local function end_room(room)
  if redis.call('EXISTS', base .. 'members:' .. room) == 1 then
    return
  end
  local meta, log = base .. 'room:' .. room, base .. 'log:' .. room
  local seq, kept = stream_end(meta, log), RETENTION
  local quiet, keep, fleeting, moderated = unpack(redis.call('HMGET', meta, 'quiet', 'keep', 'fleeting', 'moderated'))
  if moderated then
    for _, list in ipairs(keep and {} or { ':roles', ':bans', ':invites' }) do
      redis.call('EXPIRE', meta .. list, META_RETENTION)
    end
  elseif seq == 0 and not keep then
    redis.call('DEL', meta, log)
    return
  elseif seq < BUSY_SEQ then
    kept = math.min(kept, tonumber(quiet) or kept)
  end
  if not keep then
    redis.call('EXPIRE', meta, kept + (META_RETENTION - RETENTION))
  end
  if not fleeting then
    redis.call('EXPIRE', log, kept)
  end
end
