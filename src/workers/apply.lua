-- Applies one decided change to the revision it was decided on: the record, its place in the sets, the transaction's own
-- record and the result to publish, in one step. What the record holds is known to whoever decided, so that little is
-- read here; see change.ts.
-- KEYS: 1 record, 2 due set, 3 outbox, 4 transaction (reference), 5 awaiting set, 6 review set, 7 epoch, 8 breaker,
--       9 last outcomes, 10 slowed until
-- ARGV: 1 verification id, 2 expected revision and when it was made: histories that a failover has parted count the same,
--   3 '1': only while the journal is known to be whole, because the change believes that nothing was sent,
--   4 due at (0: nothing more is due, -1: as it is), 5 awaiting since ('': not, 'out': not any more),
--   6 review ('in', 'out' or '': as it is), 7 event type to publish or '', 8 the record to publish, as JSON,
--   9 who forwards it by himself, 10 history as JSON lines, 11 ms for which is kept what has ended,
--   12 words: 'ends', the record; 'hold', 'release', 'forget', its transaction; 'over', no attempt is under way;
--   13 attempts given back to the transaction,
--   14 what this says of the provider, 'good', 'failed' or '', of which 15 are kept for 16 ms,
--   17 ms in which nothing more may be sent, or 0,
--   18 to 21 how many of each follow: record fields and values, record fields to clear, the same two of the transaction
-- Returns { 1, now, outbox entry or '' } and, where an attempt failed or was on trial, { breaker, last outcomes, 1 if on
--   trial }; or when the record has moved on { 0, now, record as JSON }, or while the journal is recovering { 2, now }
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local id = ARGV[1]

local found = redis.call('HMGET', KEYS[1], 'revision', 'history', 'updatedAt')
local isAnother = not found[1] or found[1] .. ' ' .. (found[3] or '') ~= ARGV[2]
if isAnother then return { 0, now, cjson.encode(redis.call('HGETALL', KEYS[1])) } end
if ARGV[3] == '1' then
  local server = currentServer()
  if (redis.call('HGET', KEYS[7], 'server') or server) ~= server then return { 2, now } end
end

local from = 22
local function take(count)
  local list = { unpack(ARGV, from, from + count - 1) }
  from = from + count
  return list
end
local set, clear = take(tonumber(ARGV[18])), take(tonumber(ARGV[19]))
redis.call('HSET', KEYS[1], 'updatedAt', now, 'history', (found[2] or '') .. ARGV[10], unpack(set))
if #clear > 0 then redis.call('HDEL', KEYS[1], unpack(clear)) end
local function isTodo(word) return string.find(ARGV[12], word, 1, true) end
if isTodo('ends') then redis.call('PEXPIRE', KEYS[1], ARGV[11]) end

if ARGV[4] == '0' then redis.call('ZREM', KEYS[2], id)
elseif ARGV[4] ~= '-1' then redis.call('ZADD', KEYS[2], ARGV[4], id) end
if ARGV[5] == 'out' then redis.call('ZREM', KEYS[5], id)
elseif ARGV[5] ~= '' then redis.call('ZADD', KEYS[5], ARGV[5], id) end
if ARGV[6] == 'in' then redis.call('ZADD', KEYS[6], 'NX', now, id)
elseif ARGV[6] == 'out' then redis.call('ZREM', KEYS[6], id) end

local setOfReference, clearOfReference = take(tonumber(ARGV[20])), take(tonumber(ARGV[21]))
if isTodo('forget') then
  redis.call('DEL', KEYS[4])
elseif isTodo('hold') or isTodo('release') or #setOfReference > 0 then
  local fields = redis.call('HGETALL', KEYS[4])
  local known = {}
  for index = 1, #fields, 2 do known[fields[index]] = fields[index + 1] end
  local gone = {}
  local function put(field, value)
    known[field] = value
    setOfReference[#setOfReference + 1] = field
    setOfReference[#setOfReference + 1] = value
  end
  local function drop(field)
    known[field] = nil
    gone[#gone + 1] = field
  end

  if isTodo('hold') then
    -- Somebody else may have it in hand already: then this one is next, and no third one comes between.
    if not known.holder then
      put('holder', id)
      put('last', id)
    elseif known.holder ~= id then put('next:' .. id, '1') end
    put('used', tonumber(known.used or '0') + 1)
    redis.call('PERSIST', KEYS[4])
  end
  if isTodo('release') then
    if known['next:' .. id] then drop('next:' .. id) end
    -- Only who holds it gives it back: a code sent anew has forgotten what was used up, and who held it then.
    if known.holder == id then
      for _, field in ipairs(clearOfReference) do
        if known[field] and cjson.decode(known[field]).id == id then drop(field) end
      end
      if ARGV[13] ~= '0' then put('used', tonumber(known.used or '0') - ARGV[13]) end
      local heir = nil
      for index = 1, #fields, 2 do
        if known[fields[index]] then heir = heir or string.match(fields[index], '^next:(.+)$') end
      end
      if heir then
        put('holder', heir)
        drop('next:' .. heir)
      else
        drop('holder')
      end
    end
  end
  if #setOfReference > 0 then redis.call('HSET', KEYS[4], unpack(setOfReference)) end
  if #gone > 0 then redis.call('HDEL', KEYS[4], unpack(gone)) end
  -- What nobody holds ends in time, also where a code sent anew had it forgotten and this change has made it again.
  if isTodo('release') and not known.holder then redis.call('PEXPIRE', KEYS[4], ARGV[11]) end
end

-- The outbox carries a snapshot: by the time it is forwarded the record may have moved on.
local entry = ''
if ARGV[7] ~= '' then
  entry = redis.call('XADD', KEYS[3], '*', 'id', id, 'type', ARGV[7], 'at', now, 'by', ARGV[9], 'record', ARGV[8])
end

if ARGV[17] ~= '0' and tonumber(redis.call('GET', KEYS[10]) or '0') < now + ARGV[17] then
  redis.call('SET', KEYS[10], string.format('%.0f', now + ARGV[17]), 'PX', ARGV[17])
end
local onTrial = isTodo('over') and redis.call('HGET', KEYS[8], 'trial') == id
if onTrial then redis.call('HDEL', KEYS[8], 'trial', 'trialUntil') end
if ARGV[14] ~= '' then
  redis.call('LPUSH', KEYS[9], ARGV[14] .. ' ' .. now)
  redis.call('LTRIM', KEYS[9], 0, ARGV[15] - 1)
  redis.call('PEXPIRE', KEYS[9], ARGV[16])
  if onTrial or ARGV[14] == 'failed' then
    return { 1, now, entry, redis.call('HGETALL', KEYS[8]), redis.call('LRANGE', KEYS[9], 0, -1), onTrial and 1 or 0 }
  end
end
return { 1, now, entry }
