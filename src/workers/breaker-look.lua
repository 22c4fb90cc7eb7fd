-- How the breaker stands; and if it is open and a probe is due, that probe is the asker's.
-- KEYS: 1 breaker, 2 awaiting set
-- ARGV: 1 key prefix, 2 worker, 3 ms in which a probe ends, 4 how many that await proof to look at
-- Returns { now, breaker, 1 if the probe is the asker's, the verification whose inquiry has been due the longest or '' }
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local known = redis.call('HMGET', KEYS[1], 'state', 'until', 'probe', 'probeUntil')
local breaker = redis.call('HGETALL', KEYS[1])
if known[1] ~= 'open' or now < tonumber(known[2]) then return { now, breaker, 0, '' } end
-- Another one is at it, and lives.
if known[3] and now < tonumber(known[4]) and redis.call('EXISTS', ARGV[1] .. ':worker:' .. known[3]) == 1 then
  return { now, breaker, 0, '' }
end
redis.call('HSET', KEYS[1], 'probe', ARGV[2], 'probeUntil', now + tonumber(ARGV[3]))

local due, dueAt = '', now
for _, id in ipairs(redis.call('ZRANGE', KEYS[2], 0, tonumber(ARGV[4]) - 1)) do
  local at = tonumber(redis.call('HGET', ARGV[1] .. ':v:' .. id, 'nextInquiryAt') or '0')
  if at > 0 and at <= dueAt then due, dueAt = id, at end
end
return { now, breaker, 1, due }
