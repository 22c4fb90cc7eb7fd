-- Creates the journal's record of a verification, unless it exists, makes it due, and lets it be found by its reference.
-- KEYS: 1 record, 2 due set, 3 ids of the client's verifications of this transaction
-- ARGV: 1 id, 2 otp lifetime in ms, 3 deadline in Unix ms or '', 4 ms until the job must have been seen,
--       5 ms for which it is found by its reference, 6.. field, value, field, value …
-- Returns { now, deadline }, or nothing when the record exists
if redis.call('EXISTS', KEYS[1]) == 1 then return {} end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local deadline = ARGV[3] ~= '' and tonumber(ARGV[3]) or now + tonumber(ARGV[2])
redis.call('HSET', KEYS[1],
  'state', 'queued', 'revision', 1, 'sequence', 0, 'createdAt', now, 'updatedAt', now, 'expiresAt', deadline,
  'history', '{"at":' .. string.format('%.0f', now) .. ',"event":"accepted"}\n',
  unpack(ARGV, 6))
redis.call('ZADD', KEYS[2], math.min(deadline, now + tonumber(ARGV[4])), ARGV[1])
redis.call('ZADD', KEYS[3], 0, ARGV[1])
redis.call('PEXPIRE', KEYS[3], ARGV[5])
return { now, deadline }
