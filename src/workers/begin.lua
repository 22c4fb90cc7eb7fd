-- The right to send, for some verifications of one partition: look, deadline, reference, budget, rate token; all or nothing
-- for each, by the clock of Redis.
-- KEYS: 1 due set, 2 rate log, 3 this worker's heartbeat, 4 epoch, 5 workers, 6 breaker, 7 slowed until, 8.. their records
-- ARGV: 1 key prefix, 2 worker, 3 ms in which headers must leave, 4 ms in which the attempt can still be in flight,
--       5 rate max, 6 rate per ms, 7 max attempts per reference, 8 heartbeat life in ms,
--       9 the server that this worker last knew, or '',
--       10 ms in which the rate grows after the breaker has closed, or '' without a breaker,
--       11.. verification id and attempt token of each
-- Returns for each { outcome, now, … }:
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
local OWN_KEYS, OWN_ARGS = 8, 11
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local prefix, worker = ARGV[1], ARGV[2]
local sendWithin, inFlightFor, heartbeatLife = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[8])
local limit, perMs = tonumber(ARGV[5]), tonumber(ARGV[6])
local function text(number) return string.format('%.0f', number) end

-- Another server than the one this journal was last whole on may have lost a begin: see beat.lua.
local server = currentServer()
local epoch = redis.call('HGET', KEYS[4], 'server')
local isRecovering = epoch and epoch ~= server
if not epoch then
  -- A partition's first moments; or the epoch itself was lost, which a worker that knew another server can tell.
  if ARGV[9] ~= '' and ARGV[9] ~= server then isRecovering = true
  else redis.call('HSET', KEYS[4], 'server', server, 'seenAt', now) end
end

local slowedUntil = tonumber(redis.call('GET', KEYS[7]) or '0')
local hasBreaker = ARGV[10] ~= ''
local breaker = hasBreaker and redis.call('HMGET', KEYS[6], 'state', 'until', 'trial', 'trialUntil', 'since') or {}
-- Closed again, the rate grows from a tenth to the whole.
local max = limit
local closedFor = breaker[1] == 'closed' and now - tonumber(breaker[5]) or math.huge
if hasBreaker and closedFor < tonumber(ARGV[10]) then
  max = math.max(1, math.ceil(limit * (0.1 + 0.9 * closedFor / tonumber(ARGV[10]))))
end

-- A worker beats every second; here it only must be sure that it is known to live for as long as headers may leave.
local isKnownToLive = false
local function live()
  if isKnownToLive then return end
  if redis.call('PTTL', KEYS[3]) <= sendWithin then
    redis.call('SET', KEYS[3], '1', 'PX', heartbeatLife)
    redis.call('ZADD', KEYS[5], now, worker)
  end
  isKnownToLive = true
end

local hasBegun = false
local answers = each(#KEYS - OWN_KEYS + 1, function(index)
  local key = KEYS[OWN_KEYS + index - 1]
  local id, token = ARGV[OWN_ARGS + 2 * index - 2], ARGV[OWN_ARGS + 2 * index - 1]
  if isRecovering then return { 'recovering', now } end

  local record = hashAt(key)
  local state, codePrint = record.state, record.codePrint
  if not state then return { 'missing', now } end
  -- Who does not know its words must not change it, whatever they seem to say.
  if record.v and record.v ~= '1' then return { 'newer', now } end
  if state == 'settled' then return { 'settled', now } end
  if state == 'awaiting' then return { 'awaiting', now, record.nextInquiryAt or '0' } end
  if state == 'sending' then
    -- The same asking once more, because its answer was lost with the connection: the same right, for no longer.
    if record.token == token then
      redis.call('SET', KEYS[3], '1', 'PX', heartbeatLife) -- by its documentation WAIT counts what a connection has written
      return { 'begun', now, math.min(tonumber(record.expiresAt), tonumber(record.beganAt) + sendWithin), record }
    end
    -- An owner is alive while its heartbeat is. A live one will settle; a dead one may have sent: unknown, never again.
    if redis.call('EXISTS', prefix .. ':worker:' .. record.owner) == 1 then return { 'in_flight', now } end
    return { 'owner_dead', now, record }
  end

  local deadline = tonumber(record.expiresAt)
  if now >= deadline then return { 'deadline_passed', now, record } end
  local notBefore = tonumber(record.notBefore or '0')
  if notBefore > now then return { 'not_yet', now, notBefore } end

  -- The transaction's own record; an operation that takes no code uses up nothing and blocks nothing.
  local reference = prefix .. ':ref:' .. record.reference
  local used = 0
  if codePrint ~= '' then
    local known = redis.call('HMGET', reference, 'holder', 'transaction', 'provedBy', 'used', 'left', 'code:' .. codePrint)
    local holder, transaction = known[1], known[2]
    used = tonumber(known[4] or '0')
    -- Whose this code was, if it is known how it ended; its own too, where its record was forgotten and is made anew.
    local endedBy = known[6] and string.match(known[6], '^(%S+) ')
    local refuse = nil
    if endedBy then refuse = { 'already_used', endedBy }
    elseif holder and holder ~= id then refuse = { 'attempt_in_flight', holder }
    elseif transaction == 'succeeded' then refuse = { 'already_used', known[3] or '' }
    elseif used >= tonumber(ARGV[7]) or known[5] == '0' then refuse = { 'budget_spent', known[3] or '' }
    elseif transaction == 'failed' then refuse = { 'already_used', known[3] or '' }
    end
    if refuse then
      return { refuse[1], now, record, { transaction or (holder and 'unknown' or 'pending'), refuse[2] } }
    end
  end

  -- The provider has said to come later: that holds for every process, whatever BullMQ's gate lets through.
  if slowedUntil > now then return { 'rate_limited', now, slowedUntil, slowedUntil } end

  -- Open, nothing passes; half open, one at a time.
  if breaker[1] == 'open' then return { 'held', now, math.max(tonumber(breaker[2]), now + 250) } end
  local onTrial = breaker[1] == 'half_open'
  if onTrial and breaker[3] and now < tonumber(breaker[4]) then return { 'held', now, now + 250 } end

  -- Exact sliding window: the log holds the last `limit` begins, newest first. Those who find none are told times one
  -- interval apart, so that they do not all come back at once.
  local oldest = tonumber(redis.call('LINDEX', KEYS[2], max - 1) or '0')
  -- Two that begin a window apart may arrive a little less apart: the window is longer here by what that may be.
  local freeAt = oldest + perMs + math.min(math.ceil(perMs * 0.05), 50)
  if now < freeAt then
    local promised = tonumber(redis.call('GET', KEYS[2] .. ':promised') or '0')
    local at = math.ceil(math.max(freeAt, math.min(promised + perMs / max, now + 10 * perMs)))
    redis.call('SET', KEYS[2] .. ':promised', at, 'PX', at - now + perMs)
    return { 'rate_limited', now, at, 0 }
  end
  redis.call('LPUSH', KEYS[2], now)
  hasBegun = true

  if onTrial then
    breaker[3], breaker[4] = id, now + inFlightFor
    redis.call('HSET', KEYS[6], 'trial', id, 'trialUntil', breaker[4])
  end

  if codePrint ~= '' then
    used = used + 1
    redis.call('HSET', reference, 'holder', id, 'last', id, 'used', used, 'code:' .. codePrint, id)
    redis.call('PERSIST', reference)
  end
  local attempt = text(tonumber(record.attempts or '0') + 1)
  local changes = {
    'state', 'sending', 'token', token, 'owner', worker, 'beganAt', text(now), 'inFlightUntil', text(now + inFlightFor),
    'updatedAt', text(now), 'used', text(used), 'attempts', attempt, 'revision', text(tonumber(record.revision or '0') + 1),
    'history', (record.history or '') .. text(now) .. ' begun ' .. attempt .. '\n',
  }
  redis.call('HSET', key, unpack(changes))
  for at = 1, #changes, 2 do record[changes[at]] = changes[at + 1] end
  live()
  redis.call('ZADD', KEYS[1], now + heartbeatLife, id)
  return { 'begun', now, math.min(deadline, now + sendWithin), record }
end)
if hasBegun then
  redis.call('LTRIM', KEYS[2], 0, limit - 1)
  redis.call('PEXPIRE', KEYS[2], perMs * 2)
end
return answers
