-- Removes expired tasks from the indexes, then the oldest final tasks above the retention's limits. One that somebody
-- reads (keep_while_read.lua) is left until that is over, for an hour at most; no younger one goes in its place.
--
-- KEYS: 1 flansible:expiring, 2 flansible:stored_bytes, 3 flansible:tasks, 4 flansible:reading
-- ARGV: 1 most tasks to remove now, 2 most final tasks to keep, 3 most bytes of them to keep (2, 3: 0 is no limit),
--       4 output bytes per segment, 5 colours per segment, 6 most seconds that reading puts it off
-- Returns how many tasks were removed.
-- Derived keys: flansible:tasks:user:<user>, the indexes of the final state, every key of a removed task.
-- include: keys
-- include: record_keys

local expiring, stored_bytes, tasks, reading = unpack(KEYS)
local most_now, most_tasks, most_bytes = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local left, time = most_now, now_seconds()

-- Returns the id, user, state and bytes of a member of flansible:expiring.
local function parse(member)
  local id, user, state, bytes = string.match(member, '^(%S+) (.+) (%l[%l_]*) (%d+)$')
  if id then return id, user, state, tonumber(bytes) end
  id, user, state = string.match(member, '^(%S+) (.+) (%l[%l_]*)$')  -- as version 0.1.0 wrote it
  return id, user, state, 0
end

-- Whether somebody reads this task, which was first to be removed less than ARGV[6] seconds ago.
local function is_read(id)
  if not id or not redis.call('ZSCORE', reading, id) then return false end
  if redis.call('EXISTS', task_key(id)) == 0 then return false end
  redis.call('HSETNX', task_key(id), 'overdue', time)
  return time - tonumber(redis.call('HGET', task_key(id), 'overdue')) < tonumber(ARGV[6])
end

local function forget(member, delete)
  local id, user, state, bytes = parse(member)
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
  redis.call('ZREM', reading, id)
  left = left - 1
end

redis.call('ZREMRANGEBYSCORE', reading, '-inf', time)
for _, member in ipairs(redis.call('ZRANGEBYSCORE', expiring, '-inf', time, 'LIMIT', 0, left)) do
  forget(member)
end
-- Those that are left because they are read count as removed.
local spared, spared_bytes = 0, 0
while left > 0 do
  local too_many = most_tasks > 0 and redis.call('ZCARD', expiring) - spared > most_tasks
  local too_big = most_bytes > 0 and tonumber(redis.call('GET', stored_bytes) or 0) - spared_bytes > most_bytes
  local oldest = (too_many or too_big) and redis.call('ZRANGE', expiring, spared, spared)[1]
  if not oldest then break end
  local id, _, _, bytes = parse(oldest)
  if is_read(id) then
    spared, spared_bytes = spared + 1, spared_bytes + bytes
  else
    forget(oldest, true)
  end
end
return most_now - left
