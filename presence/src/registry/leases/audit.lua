#!lua flags=no-writes
-- AUDIT: finds those of a gateway's claims that the store lacks or has in part. O(claims given).
-- KEYS: 1 generation, 2 leases, 3 online, 4 owned-nicks, 5 owned-members (4-5 of the caller)
-- ARGV: 1 base, 2.. claims as JSON, as for REASSERT
-- Reply: {'OK', owner token..} of the incomplete claims
-- Called by Registry::audit, once a minute from every gateway.
local _, _, online, owned_nicks, owned_members = unpack(KEYS)

local function is_listed(list, nick, owner)
  return tonumber(redis.call('ZSCORE', list, nick)) == tonumber(list_score(owner))
end

-- Returns true if the nick is bound to the user of its claim, and the user's index has it.
local function is_bound(claim)
  if not claim.user then
    return true
  end
  return redis.call('HGET', base .. 'nick:' .. claim.nick, 'user') == claim.user
    and redis.call('ZSCORE', user_nicks(claim.user), claim.nick)
end

local function is_whole(claim)
  local nick = claim.nick
  if redis.call('HGET', base .. 'nick:' .. nick, 'owner') ~= claim.owner
    or redis.call('SISMEMBER', owned_nicks, nick) == 0 or not is_listed(online, nick, claim.owner)
    or not is_bound(claim) then
    return false
  end
  for _, room in ipairs(claim.rooms) do
    local record = redis.call('HGET', base .. 'members:' .. room[1], nick)
    if not record or split_record(record) ~= claim.owner
      or redis.call('SISMEMBER', owned_members, room[1] .. ' ' .. nick) == 0
      or not is_listed(base .. 'member-list:' .. room[1], nick, claim.owner) then
      return false
    end
  end
  return true
end

local reply = { 'OK' }
for i = 2, #ARGV do
  local claim = cjson.decode(ARGV[i])
  if not is_whole(claim) then
    reply[#reply + 1] = claim.owner
  end
end
return reply
