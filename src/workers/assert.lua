-- Writes back an attempt that the record does not know, because the server lost it: what was begun is never forgotten.
-- KEYS: 1 record, 2 due set, 3 transaction (reference)
-- ARGV: 1 verification id, 2 due at, 3 'under way', 'unresolved' (it has ended, and what became of it is not known) or 'over',
--   4.. the record as it was handed out by begin: field, value, field, value …
-- Returns { 1 when the server had lost the attempt, else 0; what it says of it: '' (no record), 'queued', 'sending',
--   'awaiting', 'settled', or 'overtaken' when another attempt is under way }
local mine = {}
for index = 4, #ARGV, 2 do mine[ARGV[index]] = ARGV[index + 1] end

local known = redis.call('HMGET', KEYS[1], 'attempts', 'state', 'token', 'revision')
local attempts, state = tonumber(known[1] or '0'), known[2] or ''
if attempts >= tonumber(mine.attempts) and state ~= '' then
  if state == 'sending' and known[3] ~= mine.token then state = 'overtaken' end
  return { 0, state }
end
if state == 'settled' then return { 1, state } end
-- A change that was decided on what stood here before must not meet what stands here now.
local revision = math.max(tonumber(known[4] or '0'), tonumber(mine.revision)) + 1
if state == 'awaiting' then
  -- It was called unknown meanwhile, and that has been published: it only learns of which attempt it is unknown.
  redis.call('HSET', KEYS[1], 'attempts', mine.attempts, 'used', mine.used, 'beganAt', mine.beganAt,
    'inFlightUntil', mine.inFlightUntil, 'revision', revision,
    'history', (redis.call('HGET', KEYS[1], 'history') or '') .. string.match(mine.history, '[^\n]*\n$'))
else
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], unpack(ARGV, 4))
  redis.call('HSET', KEYS[1], 'revision', revision)
  redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1])
end
if mine.codePrint ~= '' then
  local used = math.max(tonumber(redis.call('HGET', KEYS[3], 'used') or '0'), tonumber(mine.used))
  redis.call('HSET', KEYS[3], 'used', used, 'writtenBack', '1')
  -- One that has ended takes the code from no other attempt that may have followed it; one that is over not the transaction.
  local set = ARGV[3] == 'under way' and 'HSET' or 'HSETNX'
  redis.call(set, KEYS[3], 'code:' .. mine.codePrint, ARGV[1])
  local holder = redis.call('HGET', KEYS[3], 'holder')
  if ARGV[3] ~= 'over' or not holder then
    redis.call('HSET', KEYS[3], 'holder', ARGV[1], 'last', ARGV[1])
    -- Whoever held it may be on its way or unresolved as well: it is next. And who holds it is not next.
    local heirs = holder and holder ~= ARGV[1] and { holder } or {}
    for heir in string.gmatch(redis.call('HGET', KEYS[3], 'next') or '', '%S+') do
      if heir ~= ARGV[1] then heirs[#heirs + 1] = heir end
    end
    if #heirs > 0 then redis.call('HSET', KEYS[3], 'next', table.concat(heirs, ' ')) else redis.call('HDEL', KEYS[3], 'next') end
  end
  redis.call('PERSIST', KEYS[3])
end
return { 1, state }
