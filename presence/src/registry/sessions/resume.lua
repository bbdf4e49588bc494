#!lua
-- RESUME: moves a session to this gateway and makes the next token its token. O(rooms of the session).
-- KEYS: 1 generation, 2 leases, 3 fence, 4 nick record, 5 and 6 skeletons, 7 session, 8 inbox, 9 session-rooms, 10
--       online, 11 owned-nicks (4-6 of the requested nick, 11 of the caller)
-- ARGV: 1 base, 2 incarnation, 3 session, 4 nick key, 5 nick as shown, 6 its encoded skeletons, 7 '1' if shown in
--       ASCII, else '0', 8 the highest of these of other nicks that is compared, 9 hash of the presented token, 10 hash
--       of the next one, 11 the caller's user or ''
-- Reply: {'OK', fence, owner token and nick as shown before or '', status JSON or '', {{room as shown, epoch, seq}..},
--        inbox epoch, inbox seq, read up to}; {'FENCED'}; {'UNKNOWN'}; {'IN_USE', milliseconds of hold left or -1};
--        {'CONFUSABLE'}
-- Called by Registry::resume.
local presented, next_token = ARGV[9], ARGV[10]

enter_generation()
require_open()

-- Returns true if the owner of a nick still owns it: its lease serves, or it is drained and the hold still runs.
local function is_still_owned(fields)
  local gateway = incarnation_of(fields.owner)
  return serves(gateway)
    or redis.call('HGET', KEYS[2], gateway) == 'drained' and (tonumber(fields.held_until) or 0) > now()
end

-- Ends the hold on a nick, and its binding: the user has chosen another one.
local function end_hold(nick)
  local record = base .. 'nick:' .. nick
  local indexed, bound = unpack(redis.call('HMGET', record, 'skeleton', 'user'))
  redis.call('HDEL', record, 'held', 'held_until')
  unindex(nick, indexed or '')
  if bound then
    unbind(nick, bound)
  end
end

local function is_own(owner)
  return session_of(owner) == session
end

-- Returns the whole answer. `was` is kept in the session record, so a repeated call returns the same answer.
local function resumed(fence)
  local known = redis.call('HMGET', session_record, 'was', 'epoch', 'read')
  local keys, rooms = redis.call('SMEMBERS', session_rooms), {}
  table.sort(keys)
  for _, room in ipairs(keys) do
    local meta = redis.call('HMGET', base .. 'room:' .. room, 'display', 'epoch')
    -- A room that was forgotten meanwhile has only its key left, and begins again with the join.
    rooms[#rooms + 1] = { meta[1] or '#' .. room, meta[2] or '', stream_end(base .. 'room:' .. room, base .. 'log:' .. room) }
  end
  return { 'OK', fence, known[1] or '', redis.call('HGET', record, 'status') or '', rooms, known[2] or '',
    stream_end(session_record, inbox), known[3] or '0' }
end

if not serves(incarnation) then
  return { 'FENCED' }
end
local former, token, previous = unpack(redis.call('HMGET', session_record, 'nick', 'token', 'previous'))
if not former or (token ~= presented and previous ~= presented) then
  return { 'UNKNOWN' }
end
local fields = nick_fields(record)
local owner = fields.owner
local has_it = owner and is_own(owner)
if has_it and previous == presented and token == next_token and incarnation_of(owner) == incarnation then
  return resumed(fence_of(owner))
end
local stale = {}
if not has_it or not is_still_owned(fields) or fields.shown ~= display then
  local refused
  refused, stale = refusal(fields, is_own)
  if refused then
    return refused
  end
end

local former_record = base .. 'nick:' .. former
local before, shown, status = unpack(redis.call('HMGET', former_record, 'owner', 'display', 'status'))
before = before and is_own(before) and before
if before then
  order_end(before)
end
if has_it and former ~= nick then
  order_end(owner)
end

local fence
if has_it then
  -- Nothing is announced: other users saw no change.
  redis.call('SREM', base .. 'owned-nicks:' .. incarnation_of(owner), nick)
  fence = own(fields, 'last_active', string.format('%d', now()))
else
  local stays
  fence, stays = assign(fields, stale)
  if not before and not stays then
    log_event('online', '"nick":%s', cjson.encode(display), now())
  end
end
keep_session('token', next_token, 'previous', presented, 'was', before and before .. ' ' .. shown or '')
if former ~= nick then
  if before then
    if status then
      redis.call('HSET', record, 'status', status)
    end
    local _, bound = free_nick(former, before)
    if bound then
      unbind(former, bound)
    end
    log_event('rename', '"from":%s,"to":%s', cjson.encode(shown), cjson.encode(display), now())
  elseif redis.call('HGET', former_record, 'held') == session then
    end_hold(former)
  end
end
return resumed(fence)
