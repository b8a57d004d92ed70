-- Gives a lease to each running task that has none, as those of the first version: without one it would never end.
--
-- KEYS: 1 flansible:leases, 2 flansible:tasks:state:running
-- ARGV: none
-- Returns how many there were.
-- Derived keys: the records.
-- include: keys

local count, time = 0, now_seconds()
for _, id in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
  local state, lease = unpack(redis.call('HMGET', task_key(id), 'state', 'lease'))
  if state == 'running' and not redis.call('ZSCORE', KEYS[1], id) then
    redis.call('ZADD', KEYS[1], time + (lease or 60), id)
    count = count + 1
  end
end
return count
