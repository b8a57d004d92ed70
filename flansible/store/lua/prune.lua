-- Removes expired tasks from the indexes, then the oldest final tasks above the retention's limits. One that somebody
-- reads (keep_while_read.lua) is left until that is over, for an hour at most; no younger one goes in its place.
--
-- KEYS: 1 flansible:expiring, 2 flansible:stored_bytes, 3 flansible:tasks, 4 flansible:reading
-- ARGV: 1 most tasks to remove now, 2 most final tasks to keep, 3 most bytes of them to keep (2, 3: 0 is no limit),
--       4 output bytes per segment, 5 colours per segment, 6 most seconds that reading puts it off
-- Returns how many tasks were removed.
-- Derived keys: those of common/forget_task.
-- include: keys
-- include: record_keys
-- include: forget_task

local expiring, stored_bytes, reading = KEYS[1], KEYS[2], KEYS[4]
local most_now, most_tasks, most_bytes = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local left, time = most_now, now_seconds()

-- Whether somebody reads this task, which was first to be removed less than ARGV[6] seconds ago.
local function is_read(id)
  if not id or not redis.call('ZSCORE', reading, id) then return false end
  if redis.call('EXISTS', task_key(id)) == 0 then return false end
  redis.call('HSETNX', task_key(id), 'overdue', time)
  return time - tonumber(redis.call('HGET', task_key(id), 'overdue')) < tonumber(ARGV[6])
end

local function forget(member, delete)
  if forget_task(member, delete, ARGV[4], ARGV[5]) then left = left - 1 end
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
  local id, _, _, bytes = parse_member(oldest)
  if is_read(id) then
    spared, spared_bytes = spared + 1, spared_bytes + bytes
  else
    forget(oldest, true)
  end
end
return most_now - left
