-- A worker says that it lives, and learns whether the journal is the one it knows. The epoch of a partition is the server
-- process and the replication history that its journal was last known to be whole on. Another server may have lost the
-- last writes: then nothing may begin until what can be known has been written back.
-- KEYS: 1 epoch, 2 workers (zset by last beat), 3 this worker's heartbeat, 4 who has asserted (hash by worker)
-- ARGV: 1 worker, 2 heartbeat life in ms, 3 ms that live workers are given to assert,
--       4 the server that this worker last knew the journal whole on, or ''
-- Returns { 'open', now, server, replicas }
--   or { 'recovering', now, until, last beat of the old server, start of this one, server, replicas }
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local server = currentServer()
redis.call('SET', KEYS[3], '1', 'PX', ARGV[2])
-- Also while the journal is recovering: it may be opened, and this worker begin, before it beats again.
redis.call('ZADD', KEYS[2], now, ARGV[1])

local epoch = redis.call('HMGET', KEYS[1], 'server', 'seenAt', 'recovering', 'recoverUntil', 'recoverSince')
-- No epoch is a new partition, unless this worker has known one: then the server has lost it, and when is not known.
if not epoch[1] and ARGV[4] ~= '' and ARGV[4] ~= server then
  epoch = { ARGV[4], '0' }
  redis.call('HSET', KEYS[1], 'server', ARGV[4], 'seenAt', 0)
end
if not epoch[1] or epoch[1] == server then
  redis.call('HSET', KEYS[1], 'server', server, 'seenAt', now)
  return { 'open', now, server, replicasAtHand() }
end
local untilTime, since = epoch[4], tonumber(epoch[5] or '0')
if epoch[3] ~= server then
  untilTime, since = tostring(now + tonumber(ARGV[3])), now
  redis.call('HSET', KEYS[1], 'recovering', server, 'recoverUntil', untilTime, 'recoverSince', now)
  redis.call('DEL', KEYS[4])
end
local startedAt = now - tonumber(string.match(redis.call('INFO', 'server'), 'uptime_in_seconds:(%d+)')) * 1000
-- One that was running already while the old one still beat has followed it, and took over at a time that it does not
-- tell: by the first beat at the latest. (The uptime is in whole seconds.)
if startedAt + 1000 < tonumber(epoch[2] or '0') then startedAt = since end
return { 'recovering', now, untilTime, epoch[2] or '0', tostring(startedAt), server, replicasAtHand() }
