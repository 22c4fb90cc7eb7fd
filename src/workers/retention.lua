-- Lets go of what a partition remembers of workers that are long gone, and of what persons did long ago.
-- KEYS: 1 workers, 2 epoch, 3 audit
-- ARGV: 1 ms after which a silent worker is gone, 2 ms for which the audit is kept
-- Returns { workers forgotten, audit entries forgotten }
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- Counted from the last beat of any: while Redis was away nobody could say that he lives.
local seenAt = tonumber(redis.call('HGET', KEYS[2], 'seenAt') or '0')
local workers = redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', seenAt - ARGV[1])
local audit = redis.call('XTRIM', KEYS[3], 'MINID', '=', string.format('%.0f', now - tonumber(ARGV[2])))
return { workers, audit }
