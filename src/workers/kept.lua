-- Which of these results stand in the outbox. It writes as well, that its worker lives, for WAIT waits for what was written:
-- with this write replicas have all that came before it.
-- KEYS: 1 outbox, 2 this worker's heartbeat.  ARGV: 1 heartbeat life in ms, 2.. entries
redis.call('SET', KEYS[2], '1', 'PX', ARGV[1])
local kept = {}
for index = 2, #ARGV do
  if #redis.call('XRANGE', KEYS[1], ARGV[index], ARGV[index]) > 0 then kept[#kept + 1] = ARGV[index] end
end
return kept
