-- Claims idempotency keys of one client, each for one verification, or tells who holds it.
-- KEYS: 1 the client's rate log, 2.. the claims
-- ARGV: 1 stale after ms, 2 life of an unfinished claim in ms, 3 new claims that the client may make (0: any number) in 4 ms,
--       5.. of each: fingerprint, verification id
-- Returns for each { outcome, verification id }; outcome: new | in_progress | done | mismatch
--   or { 'resume', verification id, Unix ms at which it was claimed first }
--   or { 'limited', ms until the next new claim may be made }: then nothing was claimed
local OWN_KEYS, OWN_ARGS = 2, 5
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local max, perMs = tonumber(ARGV[3]), tonumber(ARGV[4])

return each(#KEYS - OWN_KEYS + 1, function(index)
  local key = KEYS[OWN_KEYS + index - 1]
  local fingerprint, id = ARGV[OWN_ARGS + 2 * index - 2], ARGV[OWN_ARGS + 2 * index - 1]
  local claim = redis.call('HMGET', key, 'fingerprint', 'id', 'at', 'ended', 'taken')
  if not claim[1] then
    -- Only what is new counts: whoever repeats a request gets its answer. The log holds the latest `max`, oldest first.
    if max > 0 then
      redis.call('LTRIM', KEYS[1], -max, -1)
      local oldest = redis.call('LLEN', KEYS[1]) == max and tonumber(redis.call('LINDEX', KEYS[1], 0)) or 0
      if now - oldest < perMs then return { 'limited', tostring(math.ceil(oldest + perMs - now)) } end
      redis.call('RPUSH', KEYS[1], now)
      redis.call('PEXPIRE', KEYS[1], perMs)
    end
    redis.call('HSET', key, 'fingerprint', fingerprint, 'id', id, 'at', now)
    redis.call('PEXPIRE', key, ARGV[2])
    return { 'new', id }
  end
  if claim[1] ~= fingerprint then return { 'mismatch', claim[2] } end
  -- What has ended was accepted, whether or not its acceptance lived to say so. Its record may be gone: to accept it once
  -- more would be to carry it out once more.
  if not claim[3] or claim[4] then return { 'done', claim[2] } end
  -- The caller's own claim: its reply was lost with a connection, and the client sent the script once more. It is written
  -- again as well, for WAIT waits only for what the connection that asks has written.
  if claim[2] == id then
    redis.call('HSET', key, 'taken', now)
    return { 'new', id }
  end
  if now - tonumber(claim[5] or claim[3]) < tonumber(ARGV[1]) then return { 'in_progress', claim[2] } end
  -- The process that was accepting it died or lost Redis: whoever comes next finishes it, under the same id.
  redis.call('HSET', key, 'taken', now)
  return { 'resume', claim[2], tonumber(claim[3]) }
end)
