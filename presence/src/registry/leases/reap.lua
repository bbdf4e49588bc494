#!lua flags=allow-oom
-- REAP: cleans up after an incarnation that has ended and whose hold is over: frees what it still owns and announces
-- each leave once. O(limit).
-- KEYS: 1 generation, 2 leases, 3 beats, 4 gateways, 5 ended, 6 owned-members, 7 owned-nicks, 8 mailbox (6-8 of
--       the incarnation)
-- ARGV: 1 base, 2 incarnation, 3 maximum number of entries
-- Reply: {'OK', nicks freed, memberships ended, 1 if there is more}; {'OK', 0, 0, 0} for one that serves or holds
-- Called by Registry::reap, from every reaper.
local _, leases, beats, gateways, ended, owned_members, owned_nicks, mailbox = unpack(KEYS)
local incarnation, limit = ARGV[2], tonumber(ARGV[3])
local HOUR = 3600 * 1000

enter_generation()
local end_of_hold = tonumber(redis.call('HGET', ended, incarnation)) or 0
local state = redis.call('HGET', leases, incarnation)
if serves(incarnation) or (state == 'drained' and end_of_hold > now()) then
  return { 'OK', 0, 0, 0 }
end
local reason = leave_reason(incarnation)

-- Moves a member record to a newer claim of its session, which is about to join again itself.
local function hand_over(room, nick, record, owner)
  local before, info = split_record(record)
  redis.call('HSET', base .. 'members:' .. room, nick, owner .. ' ' .. info)
  redis.call('SREM', base .. 'owned-members:' .. incarnation_of(before), room .. ' ' .. nick)
  redis.call('SADD', base .. 'owned-members:' .. incarnation_of(owner), room .. ' ' .. nick)
end

-- An entry is removed together with its record; a record that belongs to a newer claim stays.
local memberships = redis.call('SRANDMEMBER', owned_members, limit)
local members, lines = 0, {}
for _, entry in ipairs(memberships) do
  local room, nick = string.match(entry, '^(%S+) (%S+)$')
  local record = redis.call('HGET', base .. 'members:' .. room, nick)
  local owner = redis.call('HGET', base .. 'nick:' .. nick, 'owner')
  if not record or incarnation_of(record) ~= incarnation then
    redis.call('SREM', owned_members, entry)
  elseif owner and serves(incarnation_of(owner)) and succeeds(owner, (split_record(record))) then
    hand_over(room, nick, record, owner)
  else
    drop_member(room, nick, record)
    local line = log_leave(room, shown_nick(record, nick), reason)
    lines[room] = lines[room] and lines[room] .. ',' .. line or line
    members = members + 1
  end
end
for room, left in pairs(lines) do
  announce(room, '{"left":[' .. left .. ']}')
  end_room(room)
end

local nicks = 0
for _, nick in ipairs(redis.call('SRANDMEMBER', owned_nicks, limit - #memberships)) do
  local owner = redis.call('HGET', base .. 'nick:' .. nick, 'owner')
  if owner and incarnation_of(owner) == incarnation then
    log_offline(free_nick(nick, owner), reason)
    nicks = nicks + 1
  else
    redis.call('SREM', owned_nicks, nick)
  end
end

if redis.call('EXISTS', owned_members, owned_nicks) > 0 then
  return { 'OK', nicks, members, 1 }
end
redis.call('DEL', mailbox)
-- The row stays for an hour, so that operators see the gateway's end.
if now() - end_of_hold > HOUR then
  for _, rows in ipairs({ leases, beats, gateways, ended, base .. 'beaten' }) do
    redis.call('HDEL', rows, incarnation)
  end
end
return { 'OK', nicks, members, 0 }
