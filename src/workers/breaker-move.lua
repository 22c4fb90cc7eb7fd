-- Another state of the breaker, if it is still in the one that was decided on. Whoever was on trial or probing is no more.
-- KEYS: 1 breaker, 2 last outcomes
-- ARGV: 1 expected version, 2 ms after which it may be forgotten (0: never), 3.. fields and values
-- Returns 1, or 0 when somebody else has moved it
if (redis.call('HGET', KEYS[1], 'version') or '') ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('HSET', KEYS[1], unpack(ARGV, 3))
if ARGV[2] ~= '0' then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 1
