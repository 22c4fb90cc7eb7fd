-- Applies decided changes, each to the revision it was decided on: the record, its place in the sets, the transaction's own
-- record and the result to publish, each in one step or not at all. What the record holds is known to whoever decided, so
-- that little is read here.
-- KEYS: 1 due set, 2 outbox, 3 awaiting set, 4 review set, 5 epoch, 6 breaker, 7 last outcomes, 8.. of each: its record,
--       its transaction (reference), and until when what was asked of the provider is slowed
-- ARGV: 1 who forwards the results by himself, 2 how many last outcomes are kept, 3 for how many ms,
--       4 the changes, as JSON: the Application of change.ts, 5.. of each: the record to publish, as JSON, or ''
-- Returns for each { 1, now, outbox entry or '' } and, where an attempt failed or was on trial, { breaker, last outcomes,
--   1 if on trial }; or when the record has moved on { 0, now, record }, or when the fence keeps it out { 2, now }
local OWN_KEYS, OWN_ARGS = 8, 5
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local server, recovering = nil, nil
local function isAnotherServer(expected)
  if not expected then return false end
  server = server or currentServer()
  return expected ~= server
end

-- Another server than the one this journal was last whole on may have lost what a change believes: see beat.lua.
local function isRecovering()
  if recovering == nil then recovering = isAnotherServer(redis.call('HGET', KEYS[5], 'server')) end
  return recovering
end

-- For an attempt that may be followed by another: a worker of which nobody hears may have begun that one already, where this
-- server does not know it. Whoever recovers the journal looks for it from `recoverUntil` on, among what is queued then.
local function isTooLate(expected)
  if not isRecovering() then return isAnotherServer(expected) end
  local epoch = redis.call('HMGET', KEYS[5], 'recovering', 'recoverUntil')
  return epoch[1] == server and now >= tonumber(epoch[2])
end

-- What nobody holds ends in time, also where a code sent anew had it forgotten and a change has made it again. But what was
-- submitted is remembered for as long as any of its codes may be alive, however soon the records may be forgotten: `until`
-- is there where that is longer than the retention.
local function applyToTransaction(key, id, change, retentionMs, deadline)
  if change.forget then
    -- All but which verifications there are, and what is on its way at this moment: that stays the only one.
    local known, gone = hashAt(key), {}
    for field, value in pairs(known) do
      local isOnItsWay = known.holder and (
        field == 'holder' or field == 'last' or field == 'next' or value == known.holder and string.sub(field, 1, 5) == 'code:'
      )
      if string.sub(field, 1, 3) ~= 'of:' and field ~= 'until' and not isOnItsWay then gone[#gone + 1] = field end
    end
    if #gone > 0 then redis.call('HDEL', key, unpack(gone)) end
    if known.holder then redis.call('HSET', key, 'used', '1')
    else redis.call('PEXPIRE', key, math.max(retentionMs, tonumber(known['until'] or '0') - now)) end
    return
  end
  local set, gone = {}, {}
  -- Whose a code is known to be it stays: this one is only suspected to have brought it.
  for field in pairs(change.hold and change.set or {}) do
    if string.sub(field, 1, 5) == 'code:' and redis.call('HEXISTS', key, field) == 1 then change.set[field] = nil end
  end
  addFields(set, change.set)
  local holder, used, heirs, keptUntil = nil, 0, '', now + retentionMs
  if change.hold or change.release then
    local known = redis.call('HMGET', key, 'holder', 'used', 'next', 'until')
    holder, used, heirs = known[1], tonumber(known[2] or '0'), known[3] or ''
    keptUntil = math.max(keptUntil, tonumber(known[4] or '0'))
  end
  local function put(field, value)
    set[#set + 1] = field
    set[#set + 1] = value
  end

  if change.hold then
    -- Somebody else may have it in hand already: then this one is next, and no third one comes between.
    if not holder then
      holder = id
      put('holder', id)
      put('last', id)
    elseif holder ~= id and not string.find(' ' .. heirs .. ' ', ' ' .. id .. ' ', 1, true) then
      put('next', heirs == '' and id or heirs .. ' ' .. id)
    end
    put('used', used + 1)
    redis.call('PERSIST', key)
  end
  if change.release then
    local waiting = {}
    for other in string.gmatch(heirs, '%S+') do
      if other ~= id then waiting[#waiting + 1] = other end
    end
    -- Only who holds it gives it back: a code sent anew has forgotten what was used up, and who held it then. And no code
    -- while another is suspected to have brought the same.
    if holder == id then
      for _, field in ipairs(#waiting == 0 and change.clear or {}) do
        local use = redis.call('HGET', key, field)
        if use and string.match(use, '^%S+') == id then gone[#gone + 1] = field end
      end
      if change.refund > 0 then put('used', used - change.refund) end
      holder = table.remove(waiting, 1)
      if holder then put('holder', holder) else gone[#gone + 1] = 'holder' end
    end
    if deadline > keptUntil then
      keptUntil = deadline
      put('until', string.format('%.0f', deadline))
    end
    local left = table.concat(waiting, ' ')
    if left == '' and heirs ~= '' then gone[#gone + 1] = 'next' elseif left ~= heirs then put('next', left) end
  end
  if #set > 0 then redis.call('HSET', key, unpack(set)) end
  if #gone > 0 then redis.call('HDEL', key, unpack(gone)) end
  if change.release and not holder then redis.call('PEXPIRE', key, keptUntil - now) end
end

local kept = tonumber(ARGV[2])
local trial, hasToldOutcome = nil, false
local function isOnTrial(id)
  if trial == nil then trial = redis.call('HGET', KEYS[6], 'trial') end
  return trial == id
end

local changes = cjson.decode(ARGV[4])
local answers = each(#changes, function(index)
  local change = changes[index]
  local at = OWN_KEYS + 3 * (index - 1)
  local id, record, transaction, slowed = change.id, KEYS[at], KEYS[at + 1], KEYS[at + 2]

  local found = redis.call('HMGET', record, 'revision', 'history', 'updatedAt')
  local isAnother = not found[1] or found[1] .. ' ' .. (found[3] or '') ~= change.version
  if isAnother then
    local current = hashAt(record)
    return { 0, now, current }
  end
  local fence = change.fence
  local isOut = fence == 'whole' and isRecovering()
    or fence == 'in_time' and isTooLate(change.server)
    or fence == 'if_untried' and isAnotherServer(change.server)
  if isOut then return { 2, now } end

  local set = { 'updatedAt', string.format('%.0f', now), 'history', (found[2] or '') .. change.history }
  addFields(set, change.set)
  redis.call('HSET', record, unpack(set))
  if #change.clear > 0 then redis.call('HDEL', record, unpack(change.clear)) end
  if change.ends then redis.call('PEXPIRE', record, change.retentionMs) end

  if change.dueAt == 'none' then redis.call('ZREM', KEYS[1], id)
  elseif change.dueAt ~= 'as it is' then redis.call('ZADD', KEYS[1], change.dueAt, id) end
  if change.awaiting == 'out' then redis.call('ZREM', KEYS[3], id)
  elseif change.awaiting ~= 'as it is' then redis.call('ZADD', KEYS[3], change.awaiting, id) end
  if change.review == 'in' then redis.call('ZADD', KEYS[4], 'NX', now, id)
  elseif change.review == 'out' then redis.call('ZREM', KEYS[4], id) end

  local ofTransaction = change.transaction
  if ofTransaction then applyToTransaction(transaction, id, ofTransaction, change.retentionMs, change.deadline) end

  -- The outbox carries a snapshot: by the time it is forwarded the record may have moved on.
  local entry = ''
  if change.publish ~= '' then
    entry = redis.call('XADD', KEYS[2], '*',
      'id', id, 'type', change.publish, 'at', now, 'by', ARGV[1], 'record', ARGV[OWN_ARGS + index - 1])
  end

  if change.slowDownMs > 0 and tonumber(redis.call('GET', slowed) or '0') < now + change.slowDownMs then
    redis.call('SET', slowed, string.format('%.0f', now + change.slowDownMs), 'PX', change.slowDownMs)
  end
  local onTrial = change.endsAttempt and isOnTrial(id)
  -- One that failed keeps the others out until the breaker is moved: whoever went in between would fail as well.
  if onTrial and change.health ~= 'failed' then
    redis.call('HDEL', KEYS[6], 'trial', 'trialUntil')
    trial = false
  end
  if change.health ~= '' then
    redis.call('LPUSH', KEYS[7], change.health .. ' ' .. now)
    hasToldOutcome = true
    if onTrial or change.health == 'failed' then
      local outcomes = redis.call('LRANGE', KEYS[7], 0, kept - 1)
      return { 1, now, entry, redis.call('HGETALL', KEYS[6]), outcomes, onTrial and 1 or 0 }
    end
  end
  return { 1, now, entry }
end)
if hasToldOutcome then
  redis.call('LTRIM', KEYS[7], 0, kept - 1)
  redis.call('PEXPIRE', KEYS[7], ARGV[3])
end
return answers
