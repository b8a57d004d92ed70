-- Removes expired tasks from the indexes, then the oldest final tasks above the retention's limits.
--
-- KEYS: 1 flansible:expiring, 2 flansible:stored_bytes, 3 flansible:tasks
-- ARGV: 1 most tasks to remove now, 2 most final tasks to keep, 3 most bytes of them to keep (2, 3: 0 is no limit),
--       4 output bytes per segment, 5 colours per segment
-- Returns how many tasks were removed.
-- Derived keys: flansible:tasks:user:<user>, the indexes of the final state, every key of a removed task.
-- include: keys
-- include: record_keys

local expiring, stored_bytes, tasks = unpack(KEYS)
local most_now, most_tasks, most_bytes = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local left = most_now

local function forget(member, delete)
  local id, user, state, bytes = string.match(member, '^(%S+) (.+) (%l[%l_]*) (%d+)$')
  if not id then
    id, user, state = string.match(member, '^(%S+) (.+) (%l[%l_]*)$')  -- as version 0.1.0 wrote it
    bytes = 0
  end
  if not id then return redis.call('ZREM', expiring, member) end
  if delete then
    for _, key in ipairs(record_keys(id, ARGV[4], ARGV[5])) do redis.call('UNLINK', key) end
    redis.call('UNLINK', task_key(id))
  end
  redis.call('ZREM', tasks, id)
  redis.call('ZREM', PREFIX .. 'tasks:user:' .. user, id)
  each_index(user, state, function(index) redis.call('ZREM', index, id) end)
  redis.call('ZREM', expiring, member)
  redis.call('DECRBY', stored_bytes, bytes)
  left = left - 1
end

for _, member in ipairs(redis.call('ZRANGEBYSCORE', expiring, '-inf', now_seconds(), 'LIMIT', 0, left)) do
  forget(member)
end
while left > 0 do
  local too_many = most_tasks > 0 and redis.call('ZCARD', expiring) > most_tasks
  local too_big = most_bytes > 0 and tonumber(redis.call('GET', stored_bytes) or 0) > most_bytes
  local oldest = (too_many or too_big) and redis.call('ZRANGE', expiring, 0, 0)[1]
  if not oldest then break end
  forget(oldest, true)
end
return most_now - left
