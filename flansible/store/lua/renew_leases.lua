-- Renews a worker's leases and its own entry, and with that reports which claims it has. Lists are notified of results
-- that append.lua held back.
--
-- KEYS: 1 flansible:leases, 2 flansible:workers, 3 flansible:workers:slots, 4 flansible:awaited
-- ARGV: 1 lease seconds, 2 worker, 3 its slots, 4 its queues, separated by commas, then for each of its claims: task id, token
-- Returns {id, token, standing, ...} of the claims that were not renewed; standing: see common/claims, or `missing`.
-- Derived keys: the records; those of common/changes and common/continuity.
-- include: keys
-- include: changes
-- include: claims
-- include: continuity

local leases, workers, slots, awaited = unpack(KEYS)
local lease_seconds, worker, slot_count, queues = unpack(ARGV)
local time = now_seconds()
-- First: a Redis without memory refuses a script whose first write may need some, and then all that follows it.
for _, name in ipairs(redis.call('ZRANGEBYSCORE', workers, '-inf', time - 3600)) do redis.call('HDEL', slots, name) end
redis.call('ZREMRANGEBYSCORE', workers, '-inf', time - 3600)
check_continuity()
redis.call('ZREM', awaited, worker)
redis.call('ZADD', workers, time + REPORTED_SECONDS, worker)
redis.call('HSET', slots, worker, slot_count .. ' ' .. (#ARGV - 4) / 2 .. ' ' .. queues .. ' ' .. lease_seconds)
for _, key in ipairs({workers, slots}) do redis.call('EXPIRE', key, 3600) end

local function heard_again(id)
  redis.call('HDEL', task_key(id), 'silent')
  redis.call('HSET', task_key(id), 'description', 'running on ' .. redis.call('HGET', task_key(id), 'worker'))
  publish_change(id)
end

local refused = {}
for i = 5, #ARGV, 2 do
  local id = ARGV[i]
  local state, token, silent, unlisted = unpack(redis.call('HMGET', task_key(id), 'state', 'token', 'silent', 'unlisted'))
  local standing = state and standing_of(ARGV[i + 1], state, token) or 'missing'
  if standing == 'running' then
    redis.call('ZADD', leases, time + lease_seconds, id)
    if silent then heard_again(id) end
    if silent or unlisted then
      redis.call('HDEL', task_key(id), 'unlisted')
      list_entry_changed(id)
    end
  else
    for _, value in ipairs({id, ARGV[i + 1], standing}) do table.insert(refused, value) end
  end
end
return refused
