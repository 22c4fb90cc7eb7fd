-- The right to send: look, deadline, reference, budget, rate token, all or nothing, by the clock of Redis.
-- KEYS: 1 record, 2 due set, 3 rate log, 4 this worker's heartbeat, 5 epoch, 6 workers, 7 breaker, 8 slowed until
-- ARGV: 1 key prefix, 2 verification id, 3 attempt token, 4 worker, 5 ms in which headers must leave,
--       6 ms in which the attempt can still be in flight, 7 rate max, 8 rate per ms, 9 max attempts per reference,
--       10 heartbeat life in ms, 11 the server that this worker last knew, or '',
--       12 ms in which the rate grows after the breaker has closed, or '' without a breaker
-- Returns { outcome, now, … }; a record as JSON, [field, value, field, value …]:
--   begun            now, send before, record
--   rate_limited     now, try at, until when nobody else gets past either (0: somebody may)
--   held             now, try at
--   not_yet          now, try at
--   deadline_passed  now, record
--   attempt_in_flight | already_used | budget_spent   now, record, the reference's { transaction, whose it is }
--   owner_dead       now, record
--   in_flight | awaiting | settled | missing          now, next inquiry at
--   newer            now
--   recovering       now
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local prefix, id = ARGV[1], ARGV[2]
local function wholeRecord() return cjson.encode(redis.call('HGETALL', KEYS[1])) end

-- Another server than the one this journal was last whole on may have lost a begin: see beat.lua.
local server = currentServer()
local epoch = redis.call('HGET', KEYS[5], 'server')
if not epoch then
  -- A partition's first moments; or the epoch itself was lost, which a worker that knew another server can tell.
  if ARGV[11] ~= '' and ARGV[11] ~= server then return { 'recovering', now } end
  redis.call('HSET', KEYS[5], 'server', server, 'seenAt', now)
elseif epoch ~= server then return { 'recovering', now } end

local record = redis.call('HMGET', KEYS[1], 'state', 'expiresAt', 'notBefore', 'owner', 'reference', 'codePrint',
  'operation', 'nextInquiryAt', 'token', 'beganAt', 'attempts', 'revision', 'history', 'v')
local state, codePrint = record[1], record[6]
if not state then return { 'missing', now } end
-- Who does not know its words must not change it, whatever they seem to say.
if record[14] and record[14] ~= '1' then return { 'newer', now } end
if state == 'settled' then return { 'settled', now } end
if state == 'awaiting' then return { 'awaiting', now, record[8] or '0' } end
if state == 'sending' then
  -- The same asking once more, because its answer was lost with the connection: the same right, for no longer.
  if record[9] == ARGV[3] then
    redis.call('SET', KEYS[4], '1', 'PX', ARGV[10]) -- by its documentation WAIT counts what a connection has written
    local sendBefore = math.min(tonumber(record[2]), tonumber(record[10]) + tonumber(ARGV[5]))
    return { 'begun', now, tostring(sendBefore), wholeRecord() }
  end
  -- An owner is alive while its heartbeat is. A live one will settle; a dead one may have sent: unknown, never again.
  if redis.call('EXISTS', prefix .. ':worker:' .. record[4]) == 1 then return { 'in_flight', now } end
  return { 'owner_dead', now, wholeRecord() }
end

local deadline = tonumber(record[2])
if now >= deadline then return { 'deadline_passed', now, wholeRecord() } end
local notBefore = tonumber(record[3] or '0')
if notBefore > now then return { 'not_yet', now, record[3] } end

-- The transaction's own record; an operation that takes no code uses up nothing and blocks nothing.
local reference = prefix .. ':ref:' .. record[5]
local used = 0
if codePrint ~= '' then
  local known = redis.call('HMGET', reference, 'holder', 'transaction', 'provedBy', 'used', 'remaining', 'code:' .. codePrint)
  local holder, transaction = known[1], known[2]
  used = tonumber(known[4] or '0')
  local sameCode = known[6] and cjson.decode(known[6]) or nil
  local refuse = nil
  if sameCode and sameCode.id ~= id and sameCode.outcome then refuse = { 'already_used', sameCode.id }
  elseif holder and holder ~= id then refuse = { 'attempt_in_flight', holder }
  elseif transaction == 'succeeded' then refuse = { 'already_used', known[3] or '' }
  elseif used >= tonumber(ARGV[9]) or known[5] == '0' then refuse = { 'budget_spent', known[3] or '' }
  elseif transaction == 'failed' then refuse = { 'already_used', known[3] or '' }
  end
  if refuse then
    return { refuse[1], now, wholeRecord(), { transaction or (holder and 'unknown' or 'pending'), refuse[2] } }
  end
end

-- The provider has said to come later: that holds for every process, whatever BullMQ's gate lets through.
local slowedUntil = tonumber(redis.call('GET', KEYS[8]) or '0')
if slowedUntil > now then return { 'rate_limited', now, tostring(slowedUntil), tostring(slowedUntil) } end

-- Open, nothing passes; half open, one at a time; then the rate grows from a tenth to the whole.
local max, perMs = tonumber(ARGV[7]), tonumber(ARGV[8])
local onTrial = false
if ARGV[12] ~= '' then
  local breaker = redis.call('HMGET', KEYS[7], 'state', 'until', 'trial', 'trialUntil', 'since')
  if breaker[1] == 'open' then return { 'held', now, tostring(math.max(tonumber(breaker[2]), now + 250)) } end
  onTrial = breaker[1] == 'half_open'
  if onTrial and breaker[3] and now < tonumber(breaker[4]) then return { 'held', now, tostring(now + 250) } end
  local closedFor = breaker[1] == 'closed' and now - tonumber(breaker[5]) or math.huge
  local ramp = tonumber(ARGV[12])
  if closedFor < ramp then max = math.max(1, math.ceil(max * (0.1 + 0.9 * closedFor / ramp))) end
end

-- Exact sliding window: the log holds the last `max` begins, newest first. Those who find none are told times one
-- interval apart, so that they do not all come back at once.
local oldest = tonumber(redis.call('LINDEX', KEYS[3], max - 1) or '0')
-- Two that begin a window apart may arrive a little less apart: the window is longer here by what that may be.
local freeAt = oldest + perMs + math.min(math.ceil(perMs * 0.05), 50)
if now < freeAt then
  local promised = tonumber(redis.call('GET', KEYS[3] .. ':promised') or '0')
  local at = math.max(freeAt, math.min(promised + perMs / max, now + 10 * perMs))
  redis.call('SET', KEYS[3] .. ':promised', math.ceil(at), 'PX', math.ceil(at - now + perMs))
  return { 'rate_limited', now, tostring(math.ceil(at)), '0' }
end
redis.call('LPUSH', KEYS[3], now)
redis.call('LTRIM', KEYS[3], 0, tonumber(ARGV[7]) - 1)
redis.call('PEXPIRE', KEYS[3], perMs * 2)

if onTrial then redis.call('HSET', KEYS[7], 'trial', id, 'trialUntil', now + tonumber(ARGV[6])) end

if codePrint ~= '' then
  used = used + 1
  redis.call('HSET', reference, 'holder', id, 'last', id, 'used', used, 'code:' .. codePrint, cjson.encode({ id = id }))
  redis.call('PERSIST', reference)
end
local attempt = tonumber(record[11] or '0') + 1
redis.call('HSET', KEYS[1], 'state', 'sending', 'token', ARGV[3], 'owner', ARGV[4], 'beganAt', now,
  'inFlightUntil', now + tonumber(ARGV[6]), 'updatedAt', now, 'used', used, 'attempts', attempt,
  'revision', tonumber(record[12] or '0') + 1,
  'history', (record[13] or '') .. '{"at":' .. string.format('%.0f', now) .. ',"event":"begun","attempt":' .. attempt .. '}\n')
-- It beats every second; here it only must be sure that it is known to live for as long as headers may leave.
if redis.call('PTTL', KEYS[4]) <= tonumber(ARGV[5]) then
  redis.call('SET', KEYS[4], '1', 'PX', ARGV[10])
  redis.call('ZADD', KEYS[6], now, ARGV[4])
end
redis.call('ZADD', KEYS[2], now + tonumber(ARGV[10]), id)
return { 'begun', now, tostring(math.min(deadline, now + tonumber(ARGV[5]))), wholeRecord() }
