#!lua flags=no-writes
-- USERS: reads rows of users for the API. O(nicks given and their rooms).
-- KEYS: 1 generation, 2 leases
-- ARGV: 1 base, 2.. nick keys
-- Reply: {'OK', row..} of the first nicks, at least one and as many as ROOMS_MAX allows, as in user_rows.lua
-- Called by Registry::user and lookup.
local rows = { 'OK' }
for i = 2, #ARGV do
  if rooms_read >= ROOMS_MAX then
    break
  end
  rows[i] = user_row(ARGV[i])
end
return rows
