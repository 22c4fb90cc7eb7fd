-- Does `work` for each of so many and answers with JSON, one answer for each, in order. Where it fails for one, because a key
-- of that one is not what it should be, that one alone is told so: { err = … }. What Redis refuses to everybody at the time
-- it refuses to all of them.
local function each(count, work)
  local answers = {}
  for index = 1, count do
    local isDone, answer = pcall(work, index)
    if not isDone then
      local fault = type(answer) == 'table' and answer.err or tostring(answer)
      for _, word in ipairs({ 'READONLY ', 'OOM ', 'MISCONF ', 'NOREPLICAS ', 'MASTERDOWN ' }) do
        if string.find(fault, word, 1, true) then return { err = fault } end
      end
      answer = { err = fault }
    end
    answers[index] = answer
  end
  return cjson.encode(answers)
end
