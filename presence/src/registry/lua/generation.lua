-- Which generation of the store this is, as every script reads it. Needs nothing but KEYS[1], the generation record.

-- The replication id: another one means that the server was restarted, or another took its place.
local function history()
  return string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
end

-- Number and phase of the generation, and whether somebody has noticed that it began. Until then it is recovering, and the
-- number is of the one before.
local function generation()
  local known = redis.call('HMGET', KEYS[1], 'generation', 'phase', 'replid')
  local is_noticed = known[3] == history()
  return known[1] or '0', is_noticed and known[2] or 'recovering', is_noticed
end
