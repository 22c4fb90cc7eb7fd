-- Which server process this is, and on which replication history: together they change with every restart and failover.
local function currentServer()
  return string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') .. ':'
    .. string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
end
