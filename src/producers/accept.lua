-- Creates the journal's records of some verifications of one partition, each unless it exists, makes them due, and lets them
-- be found by their references.
-- KEYS: 1 due set, 2.. of each: its record, and its transaction
-- ARGV: 1 ms until a job must have been seen, 2 ms for which a verification is found by its reference at least,
--       3 the verifications, as JSON: { id, otp lifetime in ms, deadline in Unix ms or false, fields of the record }
-- Returns for each { now, deadline } as text, or false when its record exists
local OWN_KEYS = 2
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local at = string.format('%.0f', now)
local foundFor = tonumber(ARGV[2])
local verifications = cjson.decode(ARGV[3])
return each(#verifications, function(index)
  local id, lifetime, deadline, fields = unpack(verifications[index])
  local record, transaction = KEYS[OWN_KEYS + 2 * index - 2], KEYS[OWN_KEYS + 2 * index - 1]
  if redis.call('EXISTS', record) == 1 then return false end

  -- What an attempt holds has no end.
  local left = redis.call('PTTL', transaction)
  redis.call('HSET', transaction, 'of:' .. id, fields.client)
  if left ~= -1 and left < foundFor then redis.call('PEXPIRE', transaction, foundFor) end

  local expiresAt = string.format('%.0f', deadline or now + lifetime)
  local set = {
    'state', 'queued', 'revision', '1', 'sequence', '0', 'createdAt', at, 'updatedAt', at,
    'expiresAt', expiresAt, 'history', at .. ' accepted\n',
  }
  addFields(set, fields)
  redis.call('HSET', record, unpack(set))
  redis.call('ZADD', KEYS[1], math.min(expiresAt, now + tonumber(ARGV[1])), id)
  return { at, expiresAt }
end)
