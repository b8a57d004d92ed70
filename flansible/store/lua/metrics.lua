-- Reads the counters, and what there is to say of this moment.
--
-- KEYS: 1 flansible:metrics, 2 flansible:tasks:state:queued, 3 flansible:tasks:state:running, 4 flansible:workers,
--       5 flansible:workers:slots, 6 flansible:expiring
-- ARGV: none
-- Returns {counters as name, value, ...; then queued, running, seconds since the oldest queued task was submitted,
--   live workers, their slots, final tasks that are not archived, seconds since the first of them ended}; seconds as
--   text, '' for none.
-- Derived keys: records.
-- include: keys

local counters, queued, running, workers, slots, finished = unpack(KEYS)
local time = now_seconds()

-- Returns the seconds since a time in the record of a set's first task.
local function age(id, field)
  local since = id and tonumber(redis.call('HGET', task_key(id), field) or '')
  return since and string.format('%.3f', math.max(time - since, 0)) or ''
end

local live = redis.call('ZRANGEBYSCORE', workers, time, '+inf')
local sum = 0
for _, name in ipairs(live) do sum = sum + number(string.match(redis.call('HGET', slots, name) or '', '^%d+')) end
local ended = redis.call('ZRANGE', finished, 0, 0)[1]
return {redis.call('HGETALL', counters), redis.call('ZCARD', queued), redis.call('ZCARD', running),
        age(redis.call('ZRANGE', queued, 0, 0)[1], 'submitted'), #live, sum, redis.call('ZCARD', finished),
        age(ended and string.match(ended, '^%S+'), 'finished')}
