-- The rules of a room, in the form of model/room_rules.rs. Scripts of both crates contain it. Needs nothing.

-- Returns the rules of a room: those of the API, in its meta, or else those of the configuration, which the call brings
-- as JSON; nil without any.
local function rules_of(stored, configured)
  local text = stored or configured
  return text ~= '' and cjson.decode(text) or nil
end
