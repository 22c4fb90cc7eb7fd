-- A hash as a table, and a table's fields for HSET.
local function hashAt(key)
  local fields, hash = redis.call('HGETALL', key), {}
  for index = 1, #fields, 2 do hash[fields[index]] = fields[index + 1] end
  return hash, fields
end

local function addFields(list, hash)
  for field, value in pairs(hash) do
    list[#list + 1] = field
    list[#list + 1] = value
  end
end
