-- Applies one decided change to the revision it was decided on: the record, its place in the due set, the
-- transaction's own record and the result to publish, in one step.
-- KEYS: 1 record, 2 due set, 3 outbox, 4 transaction (reference), 5 awaiting set, 6 review set, 7 epoch, 8 breaker,
--       9 last outcomes, 10 slowed until
-- ARGV: 1 verification id, 2 expected revision, 3 the change as JSON:
--   set {field: value}, clear [field], dueAt (0: nothing more is due, -1: as it is), publish (event type or ''), retentionMs,
--   fenced (true: only while the journal is known to be whole, because the change believes that nothing was sent),
--   health ('good', 'failed' or '': what this says of the provider), healthKept { count, ms }, slowDownMs (0: not),
--   history (JSON lines), reference { set, clear, refund (0 or 1), release, forget, hold (bool) }
-- Returns { 1, now }, and for the breaker, where an attempt failed or was on trial, the breaker, the last outcomes and
-- whether it was on trial; or when the record has moved on { 0, now, record }, or while the journal is recovering { 2, now }
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local id, change = ARGV[1], cjson.decode(ARGV[3])

if redis.call('HGET', KEYS[1], 'revision') ~= ARGV[2] then
  return { 0, now, redis.call('HGETALL', KEYS[1]) }
end
if change.fenced then
  local server = currentServer()
  if (redis.call('HGET', KEYS[7], 'server') or server) ~= server then return { 2, now } end
end
redis.call('HINCRBY', KEYS[1], 'revision', 1)
redis.call('HSET', KEYS[1], 'updatedAt', now)
for field, value in pairs(change.set) do redis.call('HSET', KEYS[1], field, value) end
for _, field in ipairs(change.clear) do redis.call('HDEL', KEYS[1], field) end
if change.history ~= '' then
  redis.call('HSET', KEYS[1], 'history', (redis.call('HGET', KEYS[1], 'history') or '') .. change.history)
end

if change.dueAt > 0 then redis.call('ZADD', KEYS[2], change.dueAt, id)
elseif change.dueAt == 0 then redis.call('ZREM', KEYS[2], id) end
local standing = redis.call('HMGET', KEYS[1], 'state', 'awaitingSince', 'needsReview')
if standing[1] == 'awaiting' then redis.call('ZADD', KEYS[5], standing[2], id) else redis.call('ZREM', KEYS[5], id) end
if standing[3] then redis.call('ZADD', KEYS[6], 'NX', now, id) else redis.call('ZREM', KEYS[6], id) end

local reference = change.reference
if reference.forget then
  redis.call('DEL', KEYS[4])
else
  if reference.hold then
    -- Somebody else may have it in hand already: then this one is next, and no third one comes between.
    local holder = redis.call('HGET', KEYS[4], 'holder')
    if not holder then redis.call('HSET', KEYS[4], 'holder', id, 'last', id)
    elseif holder ~= id then redis.call('HSET', KEYS[4], 'next:' .. id, '1') end
    redis.call('HINCRBY', KEYS[4], 'used', 1)
    redis.call('PERSIST', KEYS[4])
  end
  for field, value in pairs(reference.set) do redis.call('HSET', KEYS[4], field, value) end
  -- Only who holds it gives it back: a code sent anew has forgotten what was used up, and who held it then.
  if reference.release then redis.call('HDEL', KEYS[4], 'next:' .. id) end
  if reference.release and redis.call('HGET', KEYS[4], 'holder') == id then
    for _, field in ipairs(reference.clear) do
      local code = redis.call('HGET', KEYS[4], field)
      if code and cjson.decode(code).id == id then redis.call('HDEL', KEYS[4], field) end
    end
    if reference.refund > 0 then redis.call('HINCRBY', KEYS[4], 'used', -reference.refund) end
    local heir = nil
    for _, field in ipairs(redis.call('HKEYS', KEYS[4])) do heir = heir or string.match(field, '^next:(.+)$') end
    if heir then
      redis.call('HSET', KEYS[4], 'holder', heir)
      redis.call('HDEL', KEYS[4], 'next:' .. heir)
    else
      redis.call('HDEL', KEYS[4], 'holder')
    end
  end
  -- What nobody holds ends in time, also where a code sent anew had it forgotten and this change has made it again.
  if reference.release and redis.call('HEXISTS', KEYS[4], 'holder') == 0 then
    redis.call('PEXPIRE', KEYS[4], change.retentionMs)
  end
end

if change.publish ~= '' then
  local sequence = redis.call('HINCRBY', KEYS[1], 'sequence', 1)
  -- The outbox carries a snapshot: by the time it is forwarded the record may have moved on.
  local entry = { 'id', id, 'type', change.publish }
  local names = { 'operation', 'client', 'reference', 'createdAt', 'updatedAt', 'expiresAt', 'head', 'claim', 'state',
    'sequence', 'final', 'otp', 'transaction', 'reason', 'nextStep', 'providerCode', 'attemptsRemaining', 'needsReview', 'details' }
  for index, value in ipairs(redis.call('HMGET', KEYS[1], unpack(names))) do
    if value then
      entry[#entry + 1] = names[index]
      entry[#entry + 1] = value
    end
  end
  redis.call('XADD', KEYS[3], '*', unpack(entry))
end
if change.set.final == '1' then redis.call('PEXPIRE', KEYS[1], change.retentionMs) end

if change.slowDownMs > 0 and tonumber(redis.call('GET', KEYS[10]) or '0') < now + change.slowDownMs then
  redis.call('SET', KEYS[10], now + change.slowDownMs, 'PX', change.slowDownMs)
end
local onTrial = standing[1] ~= 'sending' and redis.call('HGET', KEYS[8], 'trial') == id
if onTrial then redis.call('HDEL', KEYS[8], 'trial', 'trialUntil') end
if change.health ~= '' then
  redis.call('LPUSH', KEYS[9], change.health .. ' ' .. now)
  redis.call('LTRIM', KEYS[9], 0, change.healthKept.count - 1)
  redis.call('PEXPIRE', KEYS[9], change.healthKept.ms)
  if onTrial or change.health == 'failed' then
    return { 1, now, redis.call('HGETALL', KEYS[8]), redis.call('LRANGE', KEYS[9], 0, -1), onTrial and 1 or 0 }
  end
end
return { 1, now }
