-- Finds the tasks that have waited longest for nothing but a worker, among the next 1,000 queued ones.
--
-- KEYS: 1 flansible:tasks:state:queued, 2 flansible:unsent
-- ARGV: 1 most tasks, 2 score to begin after, 3 queues, separated by commas ('': all)
-- Returns {score of the last entry read ('': the end was reached), id, ...}.
-- Derived keys: the records.
-- include: keys
-- include: queues

local queued, unsent = unpack(KEYS)
local most = tonumber(ARGV[1])
local found, last = {}, ''
local page = redis.call('ZRANGEBYSCORE', queued, '(' .. ARGV[2], '+inf', 'WITHSCORES', 'LIMIT', 0, 1000)
for i = 1, #page, 2 do
  if #found == most then return {last, unpack(found)} end
  local waits_for, announced = unpack(redis.call('HMGET', task_key(page[i]), 'waits_for', 'told'))
  local waits = waits_for and not announced
  local is_ours = ARGV[3] == '' or has_queue(ARGV[3], queue_of(page[i]))
  if is_ours and not waits and not redis.call('ZSCORE', unsent, page[i]) then table.insert(found, page[i]) end
  last = page[i + 1]
end
return {#page == 2000 and last or '', unpack(found)}
