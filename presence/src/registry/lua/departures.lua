-- How an owner's hold ends: shared by the scripts that give back, throw out and clean up. The caller has compared the
-- owner already. Needs the prelude.

-- Frees a nick that `token` owns. What was shown of it stays for a while, so that its user is offline and not unknown.
local function free_nick(nick, token)
  local record = base .. 'nick:' .. nick
  local incarnation, session = string.match(token, '^([^/]+)/([^/]+)/')
  local skeleton = redis.call('HGET', record, 'skeleton')
  redis.call('HDEL', record, 'owner', 'since', 'status')
  redis.call('EXPIRE', record, RETENTION)
  redis.call('ZREM', base .. 'online', nick)
  redis.call('SREM', base .. 'owned-nicks:' .. incarnation, nick)
  redis.call('SREM', base .. 'gateway-nicks:' .. incarnation, nick)
  if skeleton then
    redis.call('ZREM', base .. 'skeleton:' .. skeleton, nick)
  end
  -- After a rename the session lives on under its other nick.
  if redis.call('HGET', base .. 'session:' .. session, 'nick') == nick then
    redis.call('EXPIRE', base .. 'session:' .. session, RETENTION)
    redis.call('EXPIRE', base .. 'inbox:' .. session, RETENTION)
  end
end

-- Logs that a nick is nobody's any more.
local function log_offline(nick, reason)
  local display = redis.call('HGET', base .. 'nick:' .. nick, 'display') or nick
  log_event('offline', '"nick":%s,"reason":"%s"', cjson.encode(display), reason, now())
end

-- Deletes a member record and what points to it. The last one takes the room off the list; its meta and log stay for a
-- while, for those who come back with a position.
local function drop_member(room, nick, record)
  local members = base .. 'members:' .. room
  redis.call('HDEL', members, nick)
  redis.call('ZREM', base .. 'member-list:' .. room, nick)
  redis.call('SREM', base .. 'nick-rooms:' .. nick, room)
  redis.call('SREM', base .. 'owned-members:' .. incarnation_of(record), room .. ' ' .. nick)
  if redis.call('EXISTS', members) == 0 then
    redis.call('ZREM', base .. 'rooms', room)
    redis.call('EXPIRE', base .. 'room:' .. room, META_RETENTION)
    redis.call('EXPIRE', base .. 'log:' .. room, RETENTION)
  end
end

-- How a member record's nick is shown, as a JSON string.
local function shown_nick(record, nick)
  local _, info = split_record(record)
  local readable, member = pcall(cjson.decode, info)
  return cjson.encode(readable and member.nick or nick)
end

-- Logs that a member left, and returns the line of the room's delta that says so.
local function log_leave(room, shown, reason)
  local display = redis.call('HGET', base .. 'room:' .. room, 'display') or room
  log_event('leave', '"room":%s,"nick":%s,"reason":"%s"', cjson.encode(display), shown, reason, now())
  return string.format('{"nick":%s,"reason":"%s"}', shown, reason)
end
