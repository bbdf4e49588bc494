-- SENDERS: decides whether the rules and roles of a room let a member send. Needs prelude.lua and roles.lua. The memory
-- twin is in the presence crate's registry/rooms/rules_memory.rs.
--
-- Only rooms with rules or mutes get here. `room:<key>:slow` has the members that the slow mode makes wait: a sorted
-- set of identities by the Unix ms of their last message, without those whose pause is over.

-- Returns the check of a room's senders: `refusal` decides about a message, `note` records one that was appended, and
-- `write` stores the records. `by_token` has the nick keys of senders whose tokens let them moderate the room, each
-- between two spaces; nil for none.
local function sender_check(room, rules, by_token)
  local slow, pause = base .. 'room:' .. room .. ':slow', (rules.slow_mode_seconds or 0) * 1000
  local roles, mutes, times, notes = {}, {}, {}, {}

  -- Returns a sender's identity, and true if it is an owner or moderator, or one by its token.
  local function sender(nick, info)
    local identity = identity_of(nick, info)
    if not roles[identity] then
      roles[identity], mutes[identity] = role_of(room, identity, now)
    end
    local moderates = roles[identity] == 'owner' or roles[identity] == 'moderator'
    return identity, moderates or by_token and string.find(by_token, ' ' .. nick .. ' ', 1, true)
  end

  local check = {}

  function check.refusal(nick, info)
    local identity, moderates = sender(nick, info)
    if roles[identity] == 'muted' then
      return { 'muted', 0, math.max(mutes[identity] - now, 0), '' }
    elseif moderates then
      return nil
    elseif rules.send == 'moderators' then
      return refused('not_allowed')
    elseif pause > 0 then
      times[identity] = times[identity] or tonumber(redis.call('ZSCORE', slow, identity) or 0)
      local wait = math.min(times[identity] + pause - now, pause)
      return wait > 0 and { 'slow_mode', 0, wait, '' } or nil
    end
  end

  function check.note(nick, info)
    local identity, moderates = sender(nick, info)
    if pause > 0 and not moderates then
      times[identity] = now
      notes[#notes + 1] = now_stamp
      notes[#notes + 1] = identity
    end
  end

  function check.write()
    if #notes > 0 then
      redis.pcall('ZADD', slow, unpack(notes))
      local over = redis.pcall('ZRANGEBYSCORE', slow, '-inf', digits(now - pause), 'LIMIT', 0, 2 * #notes)
      if over[1] then
        redis.pcall('ZREM', slow, unpack(over))
      end
      redis.pcall('EXPIRE', slow, rules.slow_mode_seconds)
    end
  end

  return check
end
