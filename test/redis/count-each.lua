return each(#KEYS, function(index) return redis.call('INCR', KEYS[index]) end)
