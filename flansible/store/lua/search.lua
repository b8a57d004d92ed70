-- Finds tasks in an index, newest first. Reads a limited number of entries, because Redis serves no other client
-- meanwhile.
--
-- KEYS: 1 the index
-- ARGV: 1 highest score, 2 most tasks, 3 most entries to read; then conditions, '' for none: 4 kind, 5 text in lower
--       case, 6 playbook, 7 host, 8 time of the submission from which on, 9 and up to which, 10 whether a host reported
--       a change (1, 0), 11 returncode
-- Returns {score of the last entry read ('': the end was reached), id, score, ...}.
-- Derived keys: records and hosts of the tasks.
-- include: keys

local index, highest = KEYS[1], ARGV[1]
local most, budget = tonumber(ARGV[2]), tonumber(ARGV[3])
local kind, text, playbook, host, since, until_, changed, returncode = unpack(ARGV, 4, 11)
local has_conditions = table.concat(ARGV, '', 4) ~= ''
local is_open = {queued = true, running = true}

local function matches(id)
  local fields = {'kind', 'summary', 'about', 'submitted_at', 'state', 'counts', 'returncode'}
  local record = redis.call('HMGET', task_key(id), unpack(fields))
  local at = record[4] or ''
  return record[1] and (kind == '' or record[1] == kind)
         and (text == '' or string.find(string.lower(record[2]), text, 1, true))
         and (playbook == '' or decode(record[3]).playbook == playbook)
         and (host == '' or redis.call('ZSCORE', task_key(id) .. ':hosts', host))
         and (since == '' or at >= since) and (until_ == '' or at < until_)
         and (returncode == '' or record[7] == returncode)
         and (changed == '' or not is_open[record[5]]
              and ((decode(record[6]).changed or 0) > 0) == (changed == '1'))
end

local found, last = {}, ''
while budget > 0 and #found < 2 * most do
  local page = redis.call('ZREVRANGEBYSCORE', index, highest, '-inf', 'WITHSCORES', 'LIMIT', 0, math.min(budget, 200))
  if #page == 0 then return {'', unpack(found)} end
  for i = 1, #page, 2 do
    last = page[i + 1]
    budget = budget - 1
    if has_conditions and matches(page[i]) or not has_conditions and redis.call('EXISTS', task_key(page[i])) == 1 then
      table.insert(found, page[i])
      table.insert(found, last)
      if #found == 2 * most then break end
    end
  end
  highest = '(' .. last
end
return {last, unpack(found)}
