-- Writes back an attempt that the record does not know, because the server lost it: what was begun is never forgotten.
-- KEYS: 1 record, 2 due set, 3 transaction (reference)
-- ARGV: 1 verification id, 2 due at, 3.. the record as it was handed out by begin: field, value, field, value …
-- Returns { 1 } when it was written back, else { 0 }
local mine = {}
for index = 3, #ARGV, 2 do mine[ARGV[index]] = ARGV[index + 1] end

local known = redis.call('HGET', KEYS[1], 'attempts')
local state = redis.call('HGET', KEYS[1], 'state')
if state and (tonumber(known or '0') >= tonumber(mine.attempts) or state == 'settled') then return { 0 } end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], unpack(ARGV, 3))
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1])
if mine.codePrint ~= '' then
  local used = math.max(tonumber(redis.call('HGET', KEYS[3], 'used') or '0'), tonumber(mine.used))
  redis.call('HSET', KEYS[3], 'holder', ARGV[1], 'last', ARGV[1], 'used', used, 'code:' .. mine.codePrint, cjson.encode({ id = ARGV[1] }))
  redis.call('PERSIST', KEYS[3])
end
return { 1 }
