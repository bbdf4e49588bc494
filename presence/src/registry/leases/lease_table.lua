-- Returns the lease table as a reply: one row {incarnation, state, counter, info, owns} for each lease. O(gateways).
-- Needs the prelude.
local function lease_table(beats, gateways)
  local rows = {}
  local leases = redis.call('HGETALL', KEYS[2])
  for i = 1, #leases, 2 do
    local incarnation = leases[i]
    -- Orders that were never fetched have to be reaped as well.
    local owns = redis.call('EXISTS', base .. 'owned-nicks:' .. incarnation, base .. 'owned-members:' .. incarnation,
      base .. 'mailbox:' .. incarnation)
    rows[#rows + 1] = {
      incarnation,
      leases[i + 1],
      redis.call('HGET', beats, incarnation) or '0',
      redis.call('HGET', gateways, incarnation) or '',
      owns > 0 and 1 or 0,
    }
  end
  return rows
end
