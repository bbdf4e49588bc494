#!lua
-- PUBLISH: appends messages to the streams of rooms and publishes them on the rooms' channels; each message gets a
-- verdict. Each room is a step of its own, with keys of its own: a room whose step fails leaves the others untouched.
-- Needs notes.lua, sizes.lua, append.lua, repeats.lua, retention.lua, roles.lua, rules.lua and senders.lua.
-- KEYS: 1 generation, 2 leases, then four for each room: room, stream, members, channel
-- ARGV: 1 base, 2 generation, 3 maximum number of notes in a bucket, 4 republishing incarnation or '', 5 maximum number
--       of messages in a stream, 6 their maximum age in milliseconds, 7 seconds that a quiet room outlives its last
--       member, 8 an unused epoch, 9 maximum number of bytes in a stream; then for each room the JSON of its rules in
--       the configuration or '', its key and its number of messages, and for each message: owner token, nick key,
--       '=<idempotency key>', '?<known idempotency key>' or '', message id, payload, '' for a first attempt or '<epoch>
--       <seq>' from before it for a repeat. If tokens let senders moderate the room, the rules follow a line with
--       their nick keys, each between two spaces
-- Reply: for each room '<epoch> <time> <last seq>' if all its messages were stored, else {epoch, time, a seq for each
--        stored message or {verdict, seq, time, message id}}; or 'apart' if its step failed before its first write,
--        'unknown' after it. Verdicts: duplicate, fenced, not_in_room, not_allowed, no_such_room (to the server API);
--        muted, slow_mode and exhausted (time: milliseconds until then, 0 for never); searching (absent up to this seq,
--        in the epoch that stands for the id), lost; or the error RECOVERING. The step of a single room fails with its
--        own error.
-- Called by RedisBackplane::publish, by Registry::post and by the republish task. A republished message was checked
-- before its ack, and its sender may have left since, so only the republishing lease is checked.
if refusal then
  return { err = refusal }
end
local quiet_s, fresh = ARGV[7], ARGV[8]

-- The first room, and the number of values of a message.
local ROOMS_AT, WORDS = 10, 6

-- Lifetime of a room without members, as after its last member left; its meta outlives every position.
local EMPTY_S = 72 * 3600

-- The seq from which a room is not quiet, as in rooms/end_room.lua.
local BUSY_SEQ = 3

-- Lifetime of a message of an ephemeral room, in milliseconds, and their maximum number; as in model/room_rules.rs.
local EPHEMERAL_MS, EPHEMERAL_MESSAGES = 3600000, 100

-- Returns the bounds of a stream. It is trimmed once its first message is older than the bound by a part of it, so that
-- not every call trims.
local function history_bounds(messages, age_ms, trim)
  return { messages = messages, trim = trim, oldest_time = now - age_ms, age_slack = age_ms / 64,
    sizes = size_limits(messages, ARGV[9]) }
end

local cluster_bounds = history_bounds(ARGV[5], ARGV[6], '~')

-- The buckets of this call, once a message needs them.
local keys_seen, repeats_seen

-- True if the call has a message that is repeated and has no client's key.
local has_repeats = false

-- Place of a message in ARGV -> the field of its note, for messages with a client's key. The others are noted under
-- their id, if they are repeated.
local fields = {}

-- Reads the notes of all messages, in one step for each kind.
local function recall_all()
  local keys, ids, at = {}, {}, ROOMS_AT
  while ARGV[at] do
    local last = at + 2 + ARGV[at + 2] * WORDS
    for place = at + 3, last, WORDS do
      if ARGV[place + 2] ~= '' then
        local _, session = split_token(ARGV[place])
        fields[place] = key_field('#' .. ARGV[at + 1], session, ARGV[place + 2])
        keys[#keys + 1] = fields[place]
      else
        has_repeats = has_repeats or ARGV[place + 5] ~= ''
        ids[#ids + 1] = ARGV[place + 3]
      end
    end
    at = last + 1
  end
  keys_seen = recalled(key_buckets(ARGV[ROOMS_AT + 3]), 300000, keys)
  if #ids > 0 then
    repeats_seen = bucket('repeats', 30000)
    if redis.call('EXISTS', repeats_seen.newer, repeats_seen.older) > 0 then
      recall(repeats_seen, ids)
    end
  end
end

-- Returns the member records of the senders, in the order of their messages.
local function member_records(members, at, last)
  if is_republish then
    return {}
  elseif last - at < WORDS then
    return { redis.call('HGET', members, ARGV[at + 1]) }
  end
  local nicks = {}
  for place = at, last, WORDS do
    nicks[#nicks + 1] = ARGV[place + 1]
  end
  return redis.call('HMGET', members, unpack(nicks))
end

-- Returns the JSON of the member info in a member record.
local function member_info(place, member)
  return string.sub(member, #ARGV[place] + 2)
end

-- Returns what the rules of a room say. Asked only in rooms with rules about messages or with a guard.
local function room_terms(meta, room, configured, guard)
  local stored, fleeting = unpack(redis.call('HMGET', meta, 'rules', 'fleeting'))
  local by_token, without = string.match(configured, '^([^\n]*)\n(.*)$')
  local rules = rules_of(stored, without or configured) or {}
  local messages, age_ms = rules.history_messages, (rules.history_hours or 0) * 3600000
  if rules.ephemeral then
    messages, age_ms = EPHEMERAL_MESSAGES, EPHEMERAL_MS
  end
  local bounds = cluster_bounds
  if messages or age_ms > 0 then
    bounds = history_bounds(messages or ARGV[5], age_ms > 0 and age_ms or ARGV[6], messages and '=' or '~')
  end
  local has_check = guard or rules.send == 'moderators' or rules.slow_mode_seconds
  local senders = has_check and not is_republish and sender_check(room, rules, by_token)
  return { bounds = bounds, senders = senders, fleeting = fleeting, ephemeral = rules.ephemeral }
end

-- Lets the stream of an ephemeral room expire after its newest message, and that of any other room not.
local function bound_lifetime(terms, meta, log)
  if terms.ephemeral then
    redis.pcall('EXPIRE', log, EPHEMERAL_MS / 1000)
    redis.pcall('HSET', meta, 'fleeting', '1', 'guard', '1')
  elseif terms.fleeting then
    redis.pcall('PERSIST', log)
    redis.pcall('HDEL', meta, 'fleeting')
  end
end

-- True once a room has got a message of the server API, which needs no member.
local is_posted

-- Returns the answer to a message of the server API to the room of `meta` that is not to be appended, else nil.
local function judge_post(place, meta)
  is_posted = true
  return first_answer(keys_seen, fields[place])
    or redis.call('EXISTS', meta) == 0 and refused('no_such_room')
    or exhausted(keys_seen, ARGV[place + 2])
end

-- Returns the answer to a message that is not to be appended, else nil. `member` is its sender's member record.
local function judge(place, member, repeats, meta, senders)
  local token, key, id = ARGV[place], ARGV[place + 2], ARGV[place + 3]
  if not writer_serves(token) then
    return refused('fenced')
  elseif is_from_api() then
    return judge_post(place, meta)
  end
  -- The owner token stands first in the record, before a space.
  local is_member = member and string.find(member, token, 1, true) == 1 and string.byte(member, #token + 1) == 32
  if not is_member and not is_republish then
    return refused('not_in_room')
  end
  if key ~= '' then
    return first_answer(keys_seen, fields[place])
      or senders and senders.refusal(ARGV[place + 1], member_info(place, member))
      or exhausted(keys_seen, key)
  end
  local answer = first_answer(repeats_seen, id)
  local found = repeats and repeats.ids[id]
  if answer or not found then
    return answer or senders and senders.refusal(ARGV[place + 1], member_info(place, member)) or nil
  elseif found ~= true then
    return { 'duplicate', found[1], found[2], id }
  elseif not repeats.searched then
    return refused('lost')
  elseif not repeats.is_end then
    return { 'searching', repeats.searched, 0, repeats.epoch }
  end
  return senders and senders.refusal(ARGV[place + 1], member_info(place, member)) or exhausted(repeats_seen, key)
end

-- Publishes the messages of one room.
local function publish_in(meta, log, members, channel, at, last)
  local records = member_records(members, at, last)
  local known = redis.call('HMGET', meta, 'epoch', 'generation', 'seq', 'time', 'oldest', 'bytes', 'guard')
  -- A malformed number is an error here, before the first write.
  local seq, time, oldest, bytes = (known[3] or 0) + 0, (known[4] or 0) + 0, (known[5] or 0) + 0, (known[6] or 0) + 0
  local epoch, is_stale, repeats = known[1] or '', known[2] ~= number, nil
  if has_repeats then
    repeats = find_repeats({ key = log, epoch = epoch, seq = seq, is_stale = is_stale }, meta, at, last, WORDS)
  end
  local terms = (known[7] or ARGV[at - 3] ~= '') and room_terms(meta, ARGV[at - 2], ARGV[at - 3], known[7])
  local bounds, senders = terms and terms.bounds or cluster_bounds, terms and terms.senders
  local answers, count, stored, is_new = nil, 0, 0, false
  local is_for_webhooks = wanted_events and has_wanted_room(wanted_events, ARGV[at - 2])
  local display = is_for_webhooks and redis.call('HGET', meta, 'display')
  local stamp, at_seq, marks, frame, frames
  for place = at, last, WORDS do
    count = count + 1
    local verdict = judge(place, records[count], repeats, meta, senders)
    if verdict then
      answers = answers or {}
      answers[count] = verdict
    else
      local key, id, payload = ARGV[place + 2], ARGV[place + 3], ARGV[place + 4]
      if not stamp then
        if is_stale then
          local _
          epoch, seq, time, _, oldest = touch(meta, log, number, fresh)
        end
        time, stamp = message_time(time)
      end
      seq, at_seq, time, stamp = append(log, bounds, seq, time, stamp, payload)
      stored, bytes, is_new = stored + 1, bytes + #payload, is_new or seq == 1
      marks = with_mark(marks, bounds.sizes, seq, bytes, #payload)
      if is_for_webhooks then
        log_for_webhooks(wanted_events, 'message', stamp, epoch .. ' ' .. at_seq .. ' ' .. (display or ''), payload)
      end
      if senders and not is_from_api() then
        senders.note(ARGV[place + 1], member_info(place, records[count]))
      end
      local sent = head('M ' .. epoch, at_seq, stamp, payload) .. payload
      if not frame then
        frame = sent
      else
        frames = frames or { frame }
        frames[#frames + 1] = sent
      end
      if key ~= '' then
        note(keys_seen, fields[place], at_seq, stamp, id)
      elseif is_republish or ARGV[place + 5] ~= '' then
        note(repeats_seen, id, at_seq, stamp, id)
      end
    end
  end
  if stored == 0 then
    return numbered({ epoch, now }, seq, answers, count)
  end

  redis.pcall('HSET', meta, 'seq', at_seq, 'time', stamp, 'bytes', digits(bytes))
  if seq < BUSY_SEQ then
    redis.pcall('HSET', meta, 'quiet', quiet_s)
  end
  if is_new then
    shrink(log)
    redis.pcall('HSET', meta, 'oldest', stamp)
  end
  local is_aged = not is_new and (oldest or 0) - bounds.oldest_time < -bounds.age_slack
  if is_aged then
    trim_by_age(meta, log, bounds.oldest_time)
  end
  if is_aged or marks then
    bound_size(meta, log, '#' .. ARGV[at - 2], bounds.sizes, seq, bytes, marks)
  end
  if terms then
    bound_lifetime(terms, meta, log)
  end
  if senders then
    senders.write()
  end
  if (is_republish or is_posted) and redis.pcall('EXISTS', members) == 0 then
    local empty_s, stays = seq < BUSY_SEQ and quiet_s or EMPTY_S, redis.pcall('HMGET', meta, 'keep', 'fleeting')
    if not stays[1] then
      redis.pcall('EXPIRE', meta, empty_s + 3600)
    end
    if not stays[2] then
      redis.pcall('EXPIRE', log, empty_s)
    end
  end
  redis.pcall('PUBLISH', channel, frames and table.concat(frames) or frame)
  if answers then
    return numbered({ epoch, time }, seq - stored, answers, count)
  end
  return epoch .. ' ' .. stamp .. ' ' .. at_seq
end

recall_all()
local replies, at, key = {}, ROOMS_AT, 3
while ARGV[at] do
  local last = at + 2 + ARGV[at + 2] * WORDS
  local reply = reply_of(#KEYS == 6, publish_in, KEYS[key], KEYS[key + 1], KEYS[key + 2], KEYS[key + 3], at + 3, last)
  if reply.err then
    return reply
  end
  replies[#replies + 1] = reply
  at, key = last + 1, key + 4
end
remember(keys_seen)
remember(repeats_seen)
return replies
