#!lua flags=allow-oom
-- FENCE: declares an incarnation dead for good, if its counter is unchanged since the observer read it. Not while the
-- generation is recovering: then the store may have stalled, not the gateway.
-- KEYS: 1 generation, 2 leases, 3 beats, 4 ended
-- ARGV: 1 base, 2 incarnation, 3 the counter that the observer read
-- Reply: {'OK'} if this call fenced it, {'NO'} if the incarnation beat, had ended, is unknown, or the generation
--        recovers
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
