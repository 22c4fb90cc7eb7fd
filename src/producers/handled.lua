-- Remembers the highest handled sequence of one verification; a lower one never replaces a higher.
-- KEYS: 1 the memory.  ARGV: 1 sequence, 2 retention in ms
if tonumber(redis.call('GET', KEYS[1]) or '0') >= tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
