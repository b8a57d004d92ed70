-- Finds queued tasks that wait for nothing but a worker, and were submitted before a task of the same queue which has been
-- running for some time: their messages must have been lost. One that was announced, or found here, is found if that
-- task was started later: its message may wait in the broker as long as workers are busy.
--
-- KEYS: 1 flansible:tasks:state:queued, 2 flansible:tasks:state:running, 3 flansible:unsent
-- ARGV: 1 most tasks, 2 seconds since the later task was started
-- Returns {id, ...}.
-- Derived keys: the records; the time is kept in `told` of those that are found.
-- include: keys
-- include: queues

local queued, running, unsent = unpack(KEYS)
local most, started_before = tonumber(ARGV[1]), now_seconds() - tonumber(ARGV[2])
local found = {}
-- Of each queue the newest among the 1,000 newest runs, if that has run for so long.
local newest, started_at, highest = {}, {}, nil
local runs = redis.call('ZREVRANGE', running, 0, 999, 'WITHSCORES')
for i = 1, #runs, 2 do
  local queue = queue_of(runs[i])
  if newest[queue] == nil then
    local started = tonumber(redis.call('HGET', task_key(runs[i]), 'started') or '')
    newest[queue] = started and started <= started_before and tonumber(runs[i + 1]) or false
    started_at[queue] = started
    if newest[queue] and not highest then highest = runs[i + 1] end
  end
end
if not highest then return found end
local page = redis.call('ZRANGEBYSCORE', queued, '-inf', highest, 'WITHSCORES', 'LIMIT', 0, 1000)
for i = 1, #page, 2 do
  local id = page[i]
  local queue = queue_of(id)
  local last = newest[queue]
  if #found == most then break end
  if last and tonumber(page[i + 1]) <= last and not redis.call('ZSCORE', unsent, id) then
    local waits_for, told = unpack(redis.call('HMGET', task_key(id), 'waits_for', 'told'), 1, 2)
    if told and tonumber(told) < started_at[queue] or not told and not waits_for then
      redis.call('HSET', task_key(id), 'told', now_seconds())
      table.insert(found, id)
    end
  end
end
return found
