-- Which generation of the store this is, as every script reads it. Needs nothing but KEYS[1], the generation record.

-- Whether the server still has this replication id: another one means that it was restarted, or another took its place.
local function is_of_now(replid)
  return replid and string.find(redis.call('INFO', 'replication'), 'master_replid:' .. replid .. '\r', 1, true) ~= nil
end

-- Number and phase of the generation, and whether somebody has noticed that it began. Until then it is recovering, and the
-- number is of the one before.
local function generation()
  local known = redis.call('HMGET', KEYS[1], 'generation', 'phase', 'replid')
  local is_noticed = is_of_now(known[3])
  return known[1] or '0', is_noticed and known[2] or 'recovering', is_noticed
end
