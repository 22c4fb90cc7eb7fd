-- Creates the journal's record of a verification, unless it exists, and makes it due.
-- KEYS: 1 record, 2 due set.  ARGV: 1 id, 2 otp lifetime in ms, 3 deadline in Unix ms or '', 4 ms until the job must have been seen,
-- 5.. field, value, field, value …
-- Returns { created (1 or 0), now }
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if redis.call('EXISTS', KEYS[1]) == 1 then return { 0, now } end

local deadline = ARGV[3] ~= '' and tonumber(ARGV[3]) or now + tonumber(ARGV[2])
redis.call('HSET', KEYS[1],
  'state', 'queued', 'revision', 1, 'sequence', 0, 'createdAt', now, 'updatedAt', now, 'expiresAt', deadline,
  'history', '{"at":' .. string.format('%.0f', now) .. ',"event":"accepted"}\n',
  unpack(ARGV, 5))
redis.call('ZADD', KEYS[2], math.min(deadline, now + tonumber(ARGV[4])), ARGV[1])
return { 1, now }
