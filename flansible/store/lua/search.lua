-- Finds tasks in an index, newest first. Reads a limited number of entries, because Redis serves no other client
-- meanwhile.
--
-- KEYS: 1 the index
-- ARGV: 1 highest score, 2 most tasks, 3 most entries to read, 4 kind ('': any), 5 text in lower case ('': any),
--       6 playbook ('': any), 7 host ('': any)
-- Returns {score of the last entry read ('': the end was reached), id, ...}.
-- Derived keys: records and hosts of the tasks.
-- include: keys

local index, highest = KEYS[1], ARGV[1]
local most, budget, kind, text, playbook, host = tonumber(ARGV[2]), tonumber(ARGV[3]), unpack(ARGV, 4, 7)

local function matches(id)
  local record = redis.call('HMGET', task_key(id), 'kind', 'summary', 'about')
  return record[1] and (kind == '' or record[1] == kind)
         and (text == '' or string.find(string.lower(record[2]), text, 1, true))
         and (playbook == '' or decode(record[3]).playbook == playbook)
         and (host == '' or redis.call('ZSCORE', task_key(id) .. ':hosts', host))
end

local found, last = {}, ''
while budget > 0 and #found < most do
  local page = redis.call('ZREVRANGEBYSCORE', index, highest, '-inf', 'WITHSCORES', 'LIMIT', 0, math.min(budget, 200))
  if #page == 0 then return {'', unpack(found)} end
  for i = 1, #page, 2 do
    last = page[i + 1]
    budget = budget - 1
    if matches(page[i]) then
      table.insert(found, page[i])
      if #found == most then break end
    end
  end
  highest = '(' .. last
end
return {last, unpack(found)}
