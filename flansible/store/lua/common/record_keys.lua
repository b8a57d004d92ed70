-- Lists the keys of one task. Needs common/keys.
-- Derived keys: the record (fields output_bytes, colours).

-- Returns every key of a task except the record itself.
local function record_keys(id, segment_bytes, colours_per_segment)
  local task = task_key(id)
  local size = redis.call('HMGET', task, 'output_bytes', 'colours')
  local keys = {task .. ':run', task .. ':secrets', task .. ':events', task .. ':hosts', task .. ':by_host',
                task .. ':output'}  -- this one is of the first version
  for n = 0, math.floor(number(size[1]) / segment_bytes) do table.insert(keys, task .. ':output:' .. n) end
  for n = 0, math.floor(number(size[2]) / colours_per_segment) do
    table.insert(keys, task .. ':colours:' .. n)
  end
  return keys
end
