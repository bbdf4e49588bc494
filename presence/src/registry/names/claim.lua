#!lua
-- CLAIM: assigns a nick to a session by the rule in assign_nick.lua.
-- KEYS: 1 generation, 2 leases, 3 fence, 4 nick record, 5 and 6 skeletons, 7 session, 8 inbox, 9 session-rooms, 10
--       online, 11 owned-nicks (of the claimant)
-- ARGV: 1 base, 2 incarnation, 3 session, 4 nick key, 5 nick as shown, 6 its encoded skeletons, 7 '1' if shown in
--       ASCII, else '0', 8 the highest of these of other nicks that is compared, 9 hash of the session's token, 10 an
--       unused epoch for its inbox, 11 the claimant's user or ''
-- Reply: {'OK', fence, epoch and seq of the session's inbox}, for a repeated claim the present ones; {'FENCED'};
--        {'STALE'} if the session has a newer token; {'IN_USE', milliseconds of hold left or -1}; {'CONFUSABLE'}
-- Called by Registry::claim.
local token, unused = ARGV[9], ARGV[10]
local claimant = incarnation .. '/' .. session .. '/'

local function is_claimant(owner)
  return string.sub(owner, 1, #claimant) == claimant
end

enter_generation()
require_open()
if not serves(incarnation) then
  return { 'FENCED' }
end
-- A late claim from before a resume must neither assign the nick nor restore the old token.
local known, epoch, seq = unpack(redis.call('HMGET', session_record, 'token', 'epoch', 'seq'))
if (known or token) ~= token then
  return { 'STALE' }
end
local fields = nick_fields(record)
if fields.owner and is_claimant(fields.owner) then
  -- The same nick in another spelling is the same claim, unless it looks like another nick in that spelling.
  if fields.shown ~= display then
    local refused = refusal(fields, is_claimant)
    if refused then
      return refused
    end
    redis.call('HSET', record, 'display', display, 'skeleton', skeletons)
    index_spelling(fields)
  end
  return { 'OK', fence_of(fields.owner), epoch or '', seq or 0 }
end
local refused, stale = refusal(fields, is_claimant)
if refused then
  return refused
end

local fence, stays = assign(fields, stale)
if epoch then
  keep_session('token', token)
else
  -- A new session has no keys with a TTL.
  redis.call('HSET', session_record, 'nick', nick, 'token', token, 'epoch', unused, 'generation', generation_number)
end
if not stays then
  log_event('online', '"nick":%s', cjson.encode(display), now())
end
return { 'OK', fence, epoch or unused, seq or 0 }
