#!lua flags=allow-oom
-- DRAIN: orders a gateway, by its mailbox, to drain; it receives the order with its next beat.
-- KEYS: 1 generation, 2 leases, 3 mailbox (of the incarnation)
-- ARGV: 1 base, 2 incarnation
-- Reply: {'OK'} if it serves, else {'NO'}
-- Called by Registry::drain.
local _, _, mailbox = unpack(KEYS)

enter_generation()
if not serves(ARGV[2]) then
  return { 'NO' }
end
redis.call('RPUSH', mailbox, '"drain"')
return { 'OK' }
