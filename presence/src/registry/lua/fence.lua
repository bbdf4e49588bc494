#!lua flags=allow-oom
-- FENCE: declares an incarnation dead, if it has not beaten since the observer looked. For good.
-- KEYS: 1 generation, 2 leases, 3 beats, 4 ended
-- ARGV: 1 base, 2 incarnation, 3 the counter that was seen to stand still
-- Reply: {'OK'} when this call did it, {'NO'} when it beat, had ended or is unknown
-- Called by Registry::fence, from every observer.
local _, leases, beats, ended = unpack(KEYS)
local _, incarnation, counter = unpack(ARGV)

enter_generation()
if not serves(incarnation) or redis.call('HGET', beats, incarnation) ~= counter then
  return { 'NO' }
end
redis.call('HSET', leases, incarnation, 'fenced')
redis.call('HSET', ended, incarnation, now())
return { 'OK' }
