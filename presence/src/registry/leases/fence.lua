#!lua flags=allow-oom
-- FENCE: declares an incarnation dead, if it has not beaten since the observer looked. For good. Not while the generation
-- is recovering: what was seen to stand still may have been the store.
-- KEYS: 1 generation, 2 leases, 3 beats, 4 ended
-- ARGV: 1 base, 2 incarnation, 3 the counter that was seen to stand still
-- Reply: {'OK'} when this call did it, {'NO'} when it beat, had ended, is unknown or is not to be judged now
-- Called by Registry::fence, from every observer.
local _, leases, beats, ended = unpack(KEYS)
local _, incarnation, counter = unpack(ARGV)

enter_generation()
local _, phase = generation()
if phase ~= 'open' or not serves(incarnation) or redis.call('HGET', beats, incarnation) ~= counter then
  return { 'NO' }
end
redis.call('HSET', leases, incarnation, 'fenced')
redis.call('HSET', ended, incarnation, now())
return { 'OK' }
