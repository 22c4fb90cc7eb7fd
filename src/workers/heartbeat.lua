-- Says that this worker lives, and nothing else: a write that comes after all that were made before it.
-- KEYS: 1 this worker's heartbeat.  ARGV: 1 its life in ms
return redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
