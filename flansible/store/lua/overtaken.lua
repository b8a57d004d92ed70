-- Finds queued tasks that wait for nothing but a worker, and were submitted before a task of the same queue which has been
-- running for some time: their messages must have been lost. One that was announced, or found here, is found if that
-- task was started later: its message may wait in the broker as long as workers are busy. It is found as well once it has
-- waited for as long again as before that, and ten minutes at least: where runs are short, no later one runs for long.
--
-- KEYS: 1 flansible:tasks:state:queued, 2 flansible:tasks:state:running, 3 flansible:unsent
-- ARGV: 1 most tasks, 2 seconds since the later task was started
-- Returns {id, ...}.
-- Derived keys: the records; the time is kept in `told` of those that are found.
-- include: keys
-- include: queues

local LATE_SECONDS = 600

local queued, running, unsent = unpack(KEYS)
local most, now = tonumber(ARGV[1]), now_seconds()
local found = {}
-- Of each queue the newest of the 1,000 newest runs that has run for so long.
local newest, started_at = {}, {}
local runs = redis.call('ZREVRANGE', running, 0, 999, 'WITHSCORES')
for i = 1, #runs, 2 do
  local queue = queue_of(runs[i])
  if newest[queue] == nil then
    local started = tonumber(redis.call('HGET', task_key(runs[i]), 'started') or '')
    if started and started <= now - tonumber(ARGV[2]) then
      newest[queue], started_at[queue] = tonumber(runs[i + 1]), started
    end
  end
end
local page = redis.call('ZRANGEBYSCORE', queued, '-inf', '+inf', 'WITHSCORES', 'LIMIT', 0, 1000)
for i = 1, #page, 2 do
  local id = page[i]
  local queue = queue_of(id)
  if #found == most then break end
  if not redis.call('ZSCORE', unsent, id) then
    local waits_for, told, submitted = unpack(redis.call('HMGET', task_key(id), 'waits_for', 'told', 'submitted'), 1, 3)
    told = tonumber(told or '')
    local is_overtaken = newest[queue] and tonumber(page[i + 1]) <= newest[queue]
    local waited = told and told - (tonumber(submitted or '') or told)
    if is_overtaken and (told and told < started_at[queue] or not told and not waits_for)
       or told and now - told >= math.max(LATE_SECONDS, waited) then
      redis.call('HSET', task_key(id), 'told', now)
      table.insert(found, id)
    end
  end
end
return found
