-- Lists the live workers.
--
-- KEYS: 1 flansible:tasks:state:running, 2 flansible:workers, 3 flansible:workers:slots
-- ARGV: none
-- Returns {name, slots, runs, ...}.
-- Derived keys: the records of the running tasks.
-- include: keys

local running, workers, slots = unpack(KEYS)
local runs, found = {}, {}
for _, id in ipairs(redis.call('ZRANGE', running, 0, 9999)) do
  local worker = redis.call('HGET', task_key(id), 'process') or ''
  runs[worker] = (runs[worker] or 0) + 1
end
for _, name in ipairs(redis.call('ZRANGEBYSCORE', workers, now_seconds(), '+inf')) do
  table.insert(found, name)
  table.insert(found, redis.call('HGET', slots, name) or 0)
  table.insert(found, runs[name] or 0)
end
return found
