#!lua flags=allow-oom
-- REASSERT: writes a gateway's claims again, for a generation that may have lost some of them, and for claims that an
-- audit found missing. O(claims given).
-- KEYS: 1 generation, 2 leases, 3 beats, 4 gateways, 5 fence, 6 asserted
-- ARGV: 1 base, 2 incarnation, 3 JSON of the gateway's info, 4 the generation, 5 '1' in the last batch, else '0', 6 an
--       unused epoch, 7.. claims as JSON: nick, display, skeletons, ascii (1 or 0), owner, status (JSON, '' for plain
--       online), info (JSON), token (hash), detached, user (absent for a guest), rooms (pairs of key
--       and name)
-- Reply: {'OK', owner token..} of the given claims that later claims have superseded; {'FENCED'}; {'OTHER_GENERATION'}
-- Called by Registry::reassert.
local _, leases, beats, gateways, fence, asserted = unpack(KEYS)
local _, incarnation, info, number, last, epoch = unpack(ARGV)

enter_generation()
local current, phase = generation()
if current ~= number then
  return { 'OTHER_GENERATION' }
end
if phase == 'recovering' and redis.call('HEXISTS', leases, incarnation) == 0 then
  redis.call('HSET', leases, incarnation, 'live')
  redis.call('HSETNX', beats, incarnation, 0)
  redis.call('HSETNX', gateways, incarnation, string.format('%d %s', now(), info))
end
if not serves(incarnation) then
  return { 'FENCED' }
end

local reply = { 'OK' }
for i = 7, #ARGV do
  local claim = cjson.decode(ARGV[i])
  if restore_nick(claim, epoch) then
    for _, room in ipairs(claim.rooms) do
      restore_member(claim, room[1], room[2], epoch)
    end
  else
    reply[#reply + 1] = claim.owner
  end
end
redis.call('SET', fence, string.format('%.0f', highest_fence))
if last == '1' then
  redis.call('SADD', asserted, incarnation)
end
return reply
