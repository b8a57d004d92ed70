-- Finds queued tasks, in no wait queue, that were submitted before a task which has been running for some time: their
-- messages must have been lost.
--
-- KEYS: 1 flansible:tasks:state:queued, 2 flansible:tasks:state:running, 3 flansible:unsent
-- ARGV: 1 most tasks, 2 seconds since the later task was started
-- Returns {id, ...}.
-- Derived keys: the records.
-- include: keys

local queued, running, unsent = unpack(KEYS)
local most, started_before = tonumber(ARGV[1]), now_seconds() - tonumber(ARGV[2])
local found = {}
local newest, newest_seq = unpack(redis.call('ZREVRANGE', running, 0, 0, 'WITHSCORES'))
if not newest then return found end
local started = tonumber(redis.call('HGET', task_key(newest), 'started') or '')
if not started or started > started_before then return found end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', queued, '-inf', newest_seq, 'LIMIT', 0, 1000)) do
  if #found == most then break end
  if redis.call('HEXISTS', task_key(id), 'waits_for') == 0 and not redis.call('ZSCORE', unsent, id) then
    table.insert(found, id)
  end
end
return found
