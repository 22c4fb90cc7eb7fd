-- The verifications of these claims have ended: the claims end in time as well, whether their acceptances have said that
-- they are complete or are just about to.
-- KEYS: claims of one client.  ARGV: 1 ms that they have left, 2.. the verification of each
for index, claim in ipairs(KEYS) do
  if redis.call('HGET', claim, 'id') == ARGV[index + 1] then
    redis.call('HSET', claim, 'ended', '1')
    redis.call('PEXPIRE', claim, ARGV[1])
  end
end
