-- Reads the generation of the store. Part of every script. Needs only KEYS[1], the generation record.

-- Returns true if the server still has this replication id: a restart or a failover changes it.
local function is_of_now(replid)
  return replid and string.find(redis.call('INFO', 'replication'), 'master_replid:' .. replid .. '\r', 1, true) ~= nil
end

-- Returns number and phase of the generation, true if its start was recorded, and the events that webhooks want. Before
-- the start was recorded, the phase is recovering and the number is the former generation's.
local function generation()
  local known = redis.call('HMGET', KEYS[1], 'generation', 'phase', 'replid', 'webhooks')
  local is_noticed = is_of_now(known[3])
  return known[1] or '0', is_noticed and known[2] or 'recovering', is_noticed, known[4] or nil
end
