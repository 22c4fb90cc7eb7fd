-- Sets a job aside that BullMQ stumbles over: from the active list to the failed ones, with something readable in it.
-- KEYS: 1 active list, 2 failed set, 3 the job's hash, 4 its lock, 5 marker.  ARGV: 1 job id, 2 reason, 3 now in Unix ms
-- Returns 1, or 0 when somebody has done it already
if redis.call('LREM', KEYS[1], 1, ARGV[1]) == 0 then return 0 end
if redis.call('TYPE', KEYS[3]).ok ~= 'hash' then redis.call('DEL', KEYS[3]) end
redis.call('HSET', KEYS[3], 'name', 'unreadable', 'data', '{}', 'opts', '{}', 'timestamp', ARGV[3],
  'finishedOn', ARGV[3], 'failedReason', ARGV[2])
redis.call('HDEL', KEYS[3], 'stacktrace', 'returnvalue', 'parent', 'parentKey', 'rjk', 'nrjid', 'deid', 'ats', 'atm', 'stc',
  'delay', 'priority', 'processedOn')
redis.call('DEL', KEYS[4])
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1])
-- The worker that stumbled over it had been woken for it, and now waits for a mark although others may wait behind it.
redis.call('ZADD', KEYS[5], 0, '0')
return 1
