-- Writes or removes a worker's record, unless another process has its name and has reported lately.
--
-- KEYS: 1 flansible:workers:records
-- ARGV: 1 the worker's name, 2 its process, 3 why it cannot run tasks ('' if it can), 4 a dead process that may have the
--       name ('' none), 5 seconds without a report after which a process loses its name, 6 write or remove, 7 its counts of
--       fork servers as JSON, 8 its queues, separated by commas
-- Returns 1 when done, otherwise 0.
-- Derived keys: flansible:metrics, to which it adds what was counted since the process' last report.
-- include: keys
-- include: metrics

local records = KEYS[1]
local name, process, problem, dead, seconds, action, counts, queues = unpack(ARGV)
local time = now_seconds()
local found = decode(redis.call('HGET', records, name))
local is_other = found.process and found.process ~= process and found.process ~= dead
if is_other and time - found.time < tonumber(seconds) then return 0 end
if action == 'remove' then
  redis.call('HDEL', records, name)
  return 1
end
local all = redis.call('HGETALL', records)
for i = 1, #all, 2 do
  if time - decode(all[i + 1]).time > 3600 then redis.call('HDEL', records, all[i]) end
end
local now, before = decode(counts), found.process == process and decode(found.counts) or {}
local function since(name) return number(now[name]) - number(before[name]) end
local function starts(of)
  local sum = 0
  for _, count in pairs(type(of.started) == 'table' and of.started or {}) do sum = sum + number(count) end
  return sum
end
if counts ~= '' then
  count_metric('starts:warm', since('warm'))
  count_metric('starts:forked', since('forked'))
  count_metric('starts:cold', starts(now) - starts(before))
  count_metric('starts:evicted', since('evicted'))
end
redis.call('HSET', records, name, cjson.encode({process = process, problem = problem, time = time, counts = counts,
                                               queues = queues}))
redis.call('EXPIRE', records, 3600)
return 1
