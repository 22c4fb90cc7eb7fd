-- Lets go of what a partition remembers of workers that are long gone, and of what persons did long ago.
-- KEYS: 1 outbox, 2 workers, 3 epoch, 4 audit
-- ARGV: 1 ms after which a silent worker is gone, 2 ms for which the audit is kept
-- Returns { readers forgotten, workers forgotten, audit entries forgotten }
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local gone = tonumber(ARGV[1])

-- A list of names and values, as Redis answers inside a script.
local function asTable(flat)
  local object = {}
  for index = 1, #flat, 2 do object[flat[index]] = flat[index + 1] end
  return object
end

local readers = 0
local groups = redis.call('EXISTS', KEYS[1]) == 1 and redis.call('XINFO', 'GROUPS', KEYS[1]) or {}
for _, flatGroup in ipairs(groups) do
  local group = asTable(flatGroup).name
  for _, flat in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], group)) do
    local consumer = asTable(flat)
    -- What it had read and not forwarded is claimed by another first.
    if consumer.pending == 0 and consumer.idle > gone then
      redis.call('XGROUP', 'DELCONSUMER', KEYS[1], group, consumer.name)
      readers = readers + 1
    end
  end
end
-- Counted from the last beat of any: while Redis was away nobody could say that he lives.
local seenAt = tonumber(redis.call('HGET', KEYS[3], 'seenAt') or '0')
local workers = redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', seenAt - gone)
local audit = redis.call('XTRIM', KEYS[4], 'MINID', '=', string.format('%.0f', now - tonumber(ARGV[2])))
return { readers, workers, audit }
