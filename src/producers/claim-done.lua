-- The acceptance under this claim is complete. From now on the claim lives as long as its verification, which may have
-- ended by now: then the end of the claim is set already.
-- KEYS: 1 the claim
if redis.call('EXISTS', KEYS[1]) == 0 then return end
redis.call('HSET', KEYS[1], 'done', '1')
if redis.call('HEXISTS', KEYS[1], 'ended') == 0 then redis.call('PERSIST', KEYS[1]) end
