#!lua
-- DIRECT: appends messages to the inboxes of the sessions that own nicks or had them last, and sends them to the
-- gateways of those that are online; each message gets a verdict. Each nick is a step of its own. Refuses a message to
-- a session that is offline and cannot be resumed. Needs notes.lua, sizes.lua, append.lua and whereabouts.lua.
-- KEYS: 1 generation, 2 leases, then for each receiver its nick, and the senders' nicks of its messages
-- ARGV: 1 base, 2 generation, 3 maximum number of notes in a bucket, 4 republishing incarnation or '', 5 the session of
--       the inbox when republishing, else '', 6 maximum number of messages in an inbox, 7 seconds that an inbox
--       outlives its session, 8 an unused epoch, 9 maximum number of bytes in an inbox; then for each receiver its nick
--       key and its number of messages, and for each message: owner token, '=<idempotency key>', '?<known idempotency
--       key>' or '', message id, payload
-- Reply: for each receiver '<1 if it is online> <session> <epoch> <time> <last seq>' if all its messages were stored,
--        else {1 if it is online, its session, epoch, time, a seq for each stored message or {verdict, seq, time,
--        message id, the session of the inbox, its epoch}}; or 'apart' or 'unknown' as in publish.lua. Verdicts:
--        duplicate, fenced, no_such_user, exhausted (time: milliseconds until then); or the error RECOVERING
-- Called by RedisBackplane::direct, by Registry::post and by the republish task. A republished message was checked
-- before its ack, so only the republishing lease is checked; the message goes to its first inbox, even if the nick has
-- another owner now.
if refusal then
  return { err = refusal }
end
local inbox_session, inbox_seconds, fresh = ARGV[5], ARGV[7], ARGV[8]
local inbox_bound = { messages = ARGV[6], trim = '~' }
local limits = size_limits(ARGV[6], ARGV[9])

-- The first receiver, and the number of values of a message.
local RECEIVERS_AT, WORDS = 10, 4

-- The buckets of this call, once a message needs them. A message without a client's key is noted under its id, for the
-- repeats of its gateway.
local keys_seen, ids_seen

-- Place of a message in ARGV -> the field of its note. A key's scope is the nick, not its session: a retry must not
-- reach a later owner of the nick.
local fields = {}

-- Reads the notes of all messages, in one step for each kind.
local function recall_all()
  local keys, ids, at = {}, {}, RECEIVERS_AT
  while ARGV[at] do
    local last = at + 1 + ARGV[at + 1] * WORDS
    for place = at + 2, last, WORDS do
      local key = ARGV[place + 1]
      if key ~= '' then
        local _, from = split_token(ARGV[place])
        fields[place] = key_field('@' .. ARGV[at], from, key)
        keys[#keys + 1] = fields[place]
      else
        fields[place] = ARGV[place + 2]
        ids[#ids + 1] = fields[place]
      end
    end
    at = last + 1
  end
  keys_seen, ids_seen = recalled(key_buckets(ARGV[RECEIVERS_AT + 2]), 300000, keys), recalled('attempts', 30000, ids)
end

-- Nick record -> owner token, each read once.
local owners = {}

local function owner_of(record)
  owners[record] = owners[record] or redis.call('HGET', record, 'owner')
  return owners[record]
end

local function refused_nowhere(verdict)
  return { verdict, 0, 0, '', '', '' }
end

-- Returns the answer to a message that is not to be appended, else nil.
local function judge(place, sender, seen, is_reachable)
  local token, key = ARGV[place], ARGV[place + 1]
  if not writer_serves(token) or not is_republish and not is_from_api() and owner_of(sender) ~= token then
    return refused_nowhere('fenced')
  end
  local first = first_answer(seen, fields[place])
  if first then
    local known, at = string.match(first[4], '^(%S+) ?(%S*)$')
    first[4], first[5], first[6] = known, at, redis.call('HGET', base .. 'session:' .. at, 'epoch') or ''
    return first
  end
  if not is_reachable then
    return refused_nowhere('no_such_user')
  end
  local full = exhausted(seen, key)
  return full and { full[1], full[2], full[3], full[4], '', '' }
end

-- Sends the messages to one nick. `senders` is the place of the first sender's nick in KEYS.
local function deliver_to(record, nick, senders, at, last)
  local known = is_republish and inbox_session
  local session, gateway, details = whereabouts(record, nick, known)
  -- A client may still resume a session with a token, and read its inbox then. A text client has no token; a session
  -- without a record has expired.
  local is_reachable = session and (gateway or is_republish or (details[2] or '') ~= '')
  local meta, inbox = base .. 'session:' .. (session or ''), base .. 'inbox:' .. (session or '')
  local epoch, seq, time, stamp, bytes, marks, ttl
  local is_for_webhooks = not gateway and is_wanted(wanted_events, 'direct_offline')
  local answers, count, stored = nil, 0, 0
  for place = at, last, WORDS do
    local seen = ARGV[place + 1] ~= '' and keys_seen or ids_seen
    local verdict = judge(place, KEYS[senders + count], seen, is_reachable)
    count = count + 1
    if verdict then
      answers = answers or {}
      answers[count] = verdict
    else
      local id, payload = ARGV[place + 2], ARGV[place + 3]
      if not seq then
        seq, time, epoch = tonumber(details[5]) or 0, tonumber(details[6]) or 0, details[3]
        -- A session that is online has no lifetime.
        ttl = gateway and -1 or redis.call('TTL', meta)
        if details[4] ~= number or not epoch then
          epoch, seq, time = touch(meta, inbox, number, fresh)
        end
        time, stamp = message_time(time)
        bytes = tonumber(details[7]) or 0
      end
      local at_seq
      seq, at_seq, time, stamp = append(inbox, inbox_bound, seq, time, stamp, payload)
      stored, bytes = stored + 1, bytes + #payload
      marks = with_mark(marks, limits, seq, bytes, #payload)
      if seq == 1 then
        shrink(inbox)
      end
      -- The session is part of the note, because the nick may have another owner at the time of a retry.
      note(seen, fields[place], at_seq, stamp, id .. ' ' .. session)
      if is_for_webhooks then
        local user = redis.pcall('HGET', record, 'user')
        log_for_webhooks(wanted_events, 'direct_offline', stamp, type(user) == 'string' and user or '', payload)
      end
      if gateway then
        redis.pcall('PUBLISH', base .. 'ch:gw:' .. gateway,
          head('D ' .. session .. ' ' .. epoch, at_seq, stamp, payload) .. payload)
      end
    end
  end
  local online = gateway and 1 or 0
  if not seq then
    return numbered({ online, session or '', '', 0 }, 0, answers, count)
  end

  redis.pcall('HSET', meta, 'seq', digits(seq), 'time', stamp, 'bytes', digits(bytes))
  if marks then
    bound_size(meta, inbox, '@' .. session, limits, seq, bytes, marks)
  end
  -- An inbox is kept while its session has a nick; afterwards it expires with the session record.
  if ttl ~= -1 then
    redis.pcall('EXPIRE', meta, ttl > 0 and ttl or inbox_seconds)
    redis.pcall('EXPIRE', inbox, ttl > 0 and ttl or inbox_seconds)
  end
  if answers then
    return numbered({ online, session, epoch, time }, seq - stored, answers, count)
  end
  return online .. ' ' .. session .. ' ' .. epoch .. ' ' .. stamp .. ' ' .. digits(seq)
end

recall_all()
local replies, at, key = {}, RECEIVERS_AT, 3
local is_only = ARGV[RECEIVERS_AT + 2 + ARGV[RECEIVERS_AT + 1] * WORDS] == nil
while ARGV[at] do
  local count = tonumber(ARGV[at + 1])
  local last = at + 1 + count * WORDS
  local reply = reply_of(is_only, deliver_to, KEYS[key], ARGV[at], key + 1, at + 2, last)
  if reply.err then
    return reply
  end
  replies[#replies + 1] = reply
  at, key = last + 1, key + 1 + count
end
remember(keys_seen)
remember(ids_seen)
return replies
