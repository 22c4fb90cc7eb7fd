-- Claims an idempotency key for one verification, or tells who holds it.
-- KEYS: 1 the claim, 2 the client's rate log
-- ARGV: 1 fingerprint, 2 verification id, 3 stale after ms, 4 life of an unfinished claim in ms,
--       5 new claims that the client may make (0: any number) in 6 ms
-- Returns { outcome, verification id }; outcome: new | resume | in_progress | done | mismatch
--   or { 'limited', ms until the next new claim may be made }: then nothing was claimed
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local claim = redis.call('HMGET', KEYS[1], 'fingerprint', 'id', 'at', 'done')
if not claim[1] then
  -- Only what is new counts: whoever repeats a request gets its answer. The log holds the latest `max`, oldest first.
  local max, perMs = tonumber(ARGV[5]), tonumber(ARGV[6])
  if max > 0 then
    redis.call('LTRIM', KEYS[2], -max, -1)
    local oldest = redis.call('LLEN', KEYS[2]) == max and tonumber(redis.call('LINDEX', KEYS[2], 0)) or 0
    if now - oldest < perMs then return { 'limited', tostring(math.ceil(oldest + perMs - now)) } end
    redis.call('RPUSH', KEYS[2], now)
    redis.call('PEXPIRE', KEYS[2], perMs)
  end
  redis.call('HSET', KEYS[1], 'fingerprint', ARGV[1], 'id', ARGV[2], 'at', now)
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
  return { 'new', ARGV[2] }
end
if claim[1] ~= ARGV[1] then return { 'mismatch', claim[2] } end
if claim[4] then return { 'done', claim[2] } end
-- The caller's own claim: its reply was lost with a connection, and the client sent the script once more. It is written
-- again as well, for WAIT waits only for what the connection that asks has written.
if claim[2] == ARGV[2] then
  redis.call('HSET', KEYS[1], 'at', now)
  return { 'new', ARGV[2] }
end
if now - tonumber(claim[3]) < tonumber(ARGV[3]) then return { 'in_progress', claim[2] } end
-- The process that was accepting it died or lost Redis: whoever comes next finishes it, under the same id.
redis.call('HSET', KEYS[1], 'at', now)
return { 'resume', claim[2] }
