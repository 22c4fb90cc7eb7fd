-- Do these keys stand here? A write goes with the question, for WAIT waits for what was written: with it replicas have all
-- that was written before. Asked in the same breath, because another server may have the slot by now.
-- KEYS: 1 a mark to write, 2.. keys that must be there
-- Returns 1 when all of them are there, else 0
redis.call('SET', KEYS[1], '1', 'PX', 1000)
for index = 2, #KEYS do
  if redis.call('EXISTS', KEYS[index]) == 0 then return 0 end
end
return 1
