-- Roles and bans of the people of a room. Scripts of both crates contain it. Needs `base`. The memory twin is in
-- rooms/moderation/memory.rs.

-- Returns the identity of a member by its nick key and the JSON of its member info. The twin is model/identity.rs.
local function identity_of(nick, info)
  local readable, member = pcall(cjson.decode, info)
  return readable and member.user and 'u' .. member.user or 'n' .. nick
end

-- Returns true if a time in Unix ms has come; 0 never comes.
local function is_over(until_ms, now)
  return until_ms ~= 0 and until_ms <= now
end

-- Returns the end of a mute in Unix ms, 0 for none; nil for another role.
local function mute_end(role)
  return tonumber(string.match(role, '^muted (%d+)'))
end

-- Returns the end of a ban in Unix ms, 0 for none.
local function ban_end(ban)
  return tonumber(string.match(ban, '"until":(%d+)')) or 0
end

-- Returns 'owner', 'moderator', 'muted' or 'member', and the end of a mute.
local function role_of(room, identity, now)
  local role = redis.call('HGET', base .. 'room:' .. room .. ':roles', identity)
  local muted_until = role and mute_end(role)
  if not muted_until then
    return role or 'member'
  elseif is_over(muted_until, now) then
    return 'member'
  end
  return 'muted', muted_until
end

-- Returns true for a person whose ban has not ended.
local function is_banned(room, identity, now)
  local ban = redis.call('HGET', base .. 'room:' .. room .. ':bans', identity)
  return ban and not is_over(ban_end(ban), now)
end
