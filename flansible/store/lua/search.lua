-- Finds tasks in one index, or in several together, newest first. Reads a limited number of entries, because Redis serves
-- no other client meanwhile.
--
-- KEYS: the indexes; a task may be in several of them
-- ARGV: 1 highest score, 2 most tasks, 3 most entries to read; then conditions, '' for none: 4 kind, 5 text in lower
--       case, 6 playbook, 7 host, 8 time of the submission from which on, 9 and up to which, 10 whether a host reported
--       a change (1, 0), 11 returncode, 12 user, 13 template
-- Returns {score of the last entry read ('': the end was reached), id, score, ...}.
-- Derived keys: records and hosts of the tasks.
-- include: keys

local highest = ARGV[1]
local most, budget = tonumber(ARGV[2]), tonumber(ARGV[3])
local kind, text, playbook, host, since, until_, changed, returncode, user, template = unpack(ARGV, 4, 13)
local has_conditions = table.concat(ARGV, '', 4) ~= ''
local is_open = {queued = true, running = true}

local function matches(id)
  local fields = {'kind', 'summary', 'about', 'submitted_at', 'state', 'counts', 'returncode', 'user'}
  local record = redis.call('HMGET', task_key(id), unpack(fields))
  local at = record[4] or ''
  return record[1] and (kind == '' or record[1] == kind)
         and (text == '' or string.find(string.lower(record[2]), text, 1, true))
         and (playbook == '' or decode(record[3]).playbook == playbook)
         and (template == '' or decode(record[3]).template == template)
         and (host == '' or redis.call('ZSCORE', task_key(id) .. ':hosts', host))
         and (since == '' or at >= since) and (until_ == '' or at < until_)
         and (returncode == '' or record[7] == returncode)
         and (user == '' or record[8] == user)
         and (changed == '' or not is_open[record[5]]
              and ((decode(record[6]).changed or 0) > 0) == (changed == '1'))
end

local function entries_of(index, count)
  return redis.call('ZREVRANGEBYSCORE', index, highest, '-inf', 'WITHSCORES', 'LIMIT', 0, count)
end

-- Returns the next entries of all indexes as one list {id, score, ...}, newest first. An index of which no more than a
-- part was read may have further ones below the last of it: what others have from there on comes with a later list.
local function next_entries(count)
  if #KEYS == 1 then return entries_of(KEYS[1], count) end
  local scores, texts, ids, lowest = {}, {}, {}, -1
  for _, index in ipairs(KEYS) do
    local found = entries_of(index, count)
    for i = 1, #found, 2 do scores[found[i]], texts[found[i]] = tonumber(found[i + 1]), found[i + 1] end
    if #found == 2 * count then lowest = math.max(lowest, tonumber(found[#found])) end
  end
  for id, score in pairs(scores) do
    if score >= lowest then table.insert(ids, id) end
  end
  table.sort(ids, function(one, other) return scores[one] > scores[other] end)
  local merged = {}
  for _, id in ipairs(ids) do
    table.insert(merged, id)
    table.insert(merged, texts[id])
  end
  return merged
end

local found, last = {}, ''
while budget > 0 and #found < 2 * most do
  local page = next_entries(math.min(budget, 200))
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
