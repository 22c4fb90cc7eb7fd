-- Reads results that have been decided and not yet forwarded, for one consumer: new ones, or its own that it has not
-- acknowledged. A script, so that it and its WAIT go to one server on one connection.
-- KEYS: 1 outbox.  ARGV: 1 group, 2 consumer, 3 at most so many, 4 '>' for new ones or '0' for its own
-- Returns as XREADGROUP does
return redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', ARGV[3], 'STREAMS', KEYS[1], ARGV[4])
