-- Which server this is. A write goes with the question, for WAIT waits for what was written.
-- KEYS: 1 a mark to write
redis.call('SET', KEYS[1], '1', 'PX', 1000)
return currentServer()
