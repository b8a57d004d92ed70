-- Renews a worker's leases and its own entry. A task that is no longer running has no lease and gets none. Lists are
-- notified of results that append.lua held back.
--
-- KEYS: 1 flansible:leases, 2 flansible:workers, 3 flansible:workers:slots
-- ARGV: 1 lease seconds, 2 worker, 3 its slots, then the ids of the tasks it runs
-- Derived keys: the records; those of common/changes.
-- include: keys
-- include: changes

local leases, workers, slots = unpack(KEYS)
local time = now_seconds()
local expires = time + ARGV[1]
for i = 4, #ARGV do
  redis.call('ZADD', leases, 'XX', expires, ARGV[i])
  if redis.call('HDEL', task_key(ARGV[i]), 'unlisted') == 1 then list_entry_changed(ARGV[i]) end
end
redis.call('ZADD', workers, expires, ARGV[2])
redis.call('HSET', slots, ARGV[2], ARGV[3])
for _, name in ipairs(redis.call('ZRANGEBYSCORE', workers, '-inf', time - 3600)) do
  redis.call('ZREM', workers, name)
  redis.call('HDEL', slots, name)
end
for _, key in ipairs({workers, slots}) do redis.call('EXPIRE', key, 3600) end
