-- Finds queued tasks, in no wait queue, that were submitted before a task of the same queue which has been running for
-- some time: their messages must have been lost.
--
-- KEYS: 1 flansible:tasks:state:queued, 2 flansible:tasks:state:running, 3 flansible:unsent
-- ARGV: 1 most tasks, 2 seconds since the later task was started
-- Returns {id, ...}.
-- Derived keys: the records.
-- include: keys
-- include: queues

local queued, running, unsent = unpack(KEYS)
local most, started_before = tonumber(ARGV[1]), now_seconds() - tonumber(ARGV[2])
local found = {}
-- Of each queue the newest among the 1,000 newest runs, if that has run for so long.
local newest, highest = {}, nil
local runs = redis.call('ZREVRANGE', running, 0, 999, 'WITHSCORES')
for i = 1, #runs, 2 do
  local queue = queue_of(runs[i])
  if newest[queue] == nil then
    local started = tonumber(redis.call('HGET', task_key(runs[i]), 'started') or '')
    newest[queue] = started and started <= started_before and tonumber(runs[i + 1]) or false
    if newest[queue] and not highest then highest = runs[i + 1] end
  end
end
if not highest then return found end
local page = redis.call('ZRANGEBYSCORE', queued, '-inf', highest, 'WITHSCORES', 'LIMIT', 0, 1000)
for i = 1, #page, 2 do
  local id, last = page[i], newest[queue_of(page[i])]
  if #found == most then break end
  if last and tonumber(page[i + 1]) <= last and redis.call('HEXISTS', task_key(id), 'waits_for') == 0 and not redis.call('ZSCORE', unsent, id) then
    table.insert(found, id)
  end
end
return found
