-- May this verification be asked about now? One round trip: the record, and a token of the inquiries' own rate.
-- KEYS: 1 record, 2 inquiry rate log, 3 breaker, 4 inquiries slowed until
-- ARGV: 1 rate max, 2 rate per ms, 3 grace in ms, 4 '1' to be held by an open breaker, '' for its probe or without one
-- Returns { 'ask', now, record as JSON } | { 'rate_limited' | 'not_yet' | 'held', now, try at } | { 'idle', now }
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local known = redis.call('HMGET', KEYS[1], 'state', 'nextInquiryAt')
local at = tonumber(known[2] or '0')
if known[1] ~= 'awaiting' or at == 0 then return { 'idle', now } end
if now + tonumber(ARGV[3]) < at then return { 'not_yet', now, known[2] } end
if ARGV[4] ~= '' then
  local breaker = redis.call('HMGET', KEYS[3], 'state', 'until')
  if breaker[1] == 'open' then return { 'held', now, tostring(math.max(tonumber(breaker[2]), now + 1000)) } end
end
local slowedUntil = tonumber(redis.call('GET', KEYS[4]) or '0')
if slowedUntil > now then return { 'rate_limited', now, tostring(slowedUntil) } end

local max, perMs = tonumber(ARGV[1]), tonumber(ARGV[2])
local oldest = tonumber(redis.call('LINDEX', KEYS[2], max - 1) or '0')
if now - oldest < perMs then return { 'rate_limited', now, tostring(math.ceil(oldest + perMs)) } end
redis.call('LPUSH', KEYS[2], now)
redis.call('LTRIM', KEYS[2], 0, max - 1)
redis.call('PEXPIRE', KEYS[2], perMs * 2)
local record = hashAt(KEYS[1])
return { 'ask', now, cjson.encode(record) }
