#!lua flags=allow-oom
-- REASSERT: a gateway says what it holds, and the store has it again: for a generation that may have lost some of it, and
-- for what an audit found missing. O(what is given).
-- KEYS: 1 generation, 2 leases, 3 beats, 4 gateways, 5 fence, 6 asserted
-- ARGV: 1 base, 2 incarnation, 3 JSON of what the gateway tells about itself, 4 the generation it speaks in, 5 '1' if this
--       is the last it has to say, else '0', 6 an unused epoch, 7.. holdings as JSON: nick, display, skeleton, ascii (1 or
--       0), owner, status (JSON, '' for plain online), info (JSON), token (hash), detached, rooms (pairs of key and name)
-- Reply: {'OK', owner token..} with the claims given that a later one has overtaken; {'FENCED'}; {'OTHER_GENERATION'}
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
  local holding = cjson.decode(ARGV[i])
  if restore_nick(holding, epoch) then
    for _, room in ipairs(holding.rooms) do
      restore_member(holding, room[1], room[2], epoch)
    end
  else
    reply[#reply + 1] = holding.owner
  end
end
redis.call('SET', fence, string.format('%.0f', highest_fence))
if last == '1' then
  redis.call('SADD', asserted, incarnation)
end
return reply
