-- Opens the epoch on this server, unless it is another one by now: then whoever recovered begins anew.
-- KEYS: 1 epoch, 2 workers, 3 who has asserted, 4 the recoverer's lease.  ARGV: 1 server, 2.. workers that are gone
-- Returns 1 when it is open, else 0
if currentServer() ~= ARGV[1] then return 0 end
local time = redis.call('TIME')
if #ARGV > 1 then redis.call('ZREM', KEYS[2], unpack(ARGV, 2)) end
redis.call('DEL', KEYS[3], KEYS[4])
redis.call('HDEL', KEYS[1], 'recovering', 'recoverUntil', 'recoverSince')
redis.call('HSET', KEYS[1], 'server', ARGV[1], 'seenAt', time[1] * 1000 + math.floor(time[2] / 1000))
return 1
