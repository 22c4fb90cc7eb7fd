-- Replicas that have acknowledged what was written two seconds ago; one that is connected and hangs is none.
local function replicasAtHand()
  local count = 0
  for state, lag in string.gmatch(redis.call('INFO', 'replication'), 'slave%d+:[^\r\n]*state=(%a+)[^\r\n]*lag=(%-?%d+)') do
    if state == 'online' and tonumber(lag) >= 0 and tonumber(lag) <= 2 then count = count + 1 end
  end
  return count
end
