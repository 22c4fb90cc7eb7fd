-- A worker says that it lives, and learns whether the journal is the one it knows. The epoch of a partition is the server
-- process and the replication history that its journal was last known to be whole on. Another server may have lost the
-- last writes: then nothing may begin until what can be known has been written back.
-- KEYS: 1 epoch, 2 workers (zset by last beat), 3 this worker's heartbeat, 4 who has asserted (hash by worker)
-- ARGV: 1 worker, 2 heartbeat life in ms, 3 ms that live workers are given to assert
-- Returns { 'open', now } or { 'recovering', now, until, last beat of the old server, start of this one, server }
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local server = currentServer()
redis.call('SET', KEYS[3], '1', 'PX', ARGV[2])

local epoch = redis.call('HMGET', KEYS[1], 'server', 'seenAt', 'recovering', 'recoverUntil')
if not epoch[1] or epoch[1] == server then
  redis.call('HSET', KEYS[1], 'server', server, 'seenAt', now)
  redis.call('ZADD', KEYS[2], now, ARGV[1])
  return { 'open', now }
end
local untilTime = epoch[4]
if epoch[3] ~= server then
  untilTime = tostring(now + tonumber(ARGV[3]))
  redis.call('HSET', KEYS[1], 'recovering', server, 'recoverUntil', untilTime)
  redis.call('DEL', KEYS[4])
end
local startedAt = now - tonumber(string.match(redis.call('INFO', 'server'), 'uptime_in_seconds:(%d+)')) * 1000
return { 'recovering', now, untilTime, epoch[2] or '0', tostring(startedAt), server }
