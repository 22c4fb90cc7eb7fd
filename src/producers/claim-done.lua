-- The acceptances under these claims are complete: nobody takes one over any more, however long ago it was made. From now on
-- a claim lives as long as its verification, which may have ended by now: then the end of the claim is set already. A claim
-- that has ended may have been made anew for another verification.
-- KEYS: claims of one client.  ARGV: the verification of each
for index, claim in ipairs(KEYS) do
  local known = redis.call('HMGET', claim, 'id', 'ended')
  if known[1] == ARGV[index] then
    redis.call('HDEL', claim, 'at', 'taken')
    if not known[2] then redis.call('PERSIST', claim) end
  end
end
