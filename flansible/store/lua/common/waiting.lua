-- Locks, limits of users, and the queued tasks that wait for them. Needs common/keys.
--
-- A task that cannot be claimed yet joins one wait queue: `lock:<name>` or `user:<user>`. When what it waits for
-- becomes free, the script that frees it announces the first waiters (at most as many as may start): it returns them
-- to its caller, which sends their messages again. An announced task stays in its wait queue until it is claimed, so
-- that no other task is announced in its place.
--
-- Derived keys: flansible:waiting, flansible:waiting:<queue>, flansible:locks, flansible:unsent,
-- flansible:tasks:user:<user>:running, records (fields state, waits_for, told, max_running, summary, queue).

local ANNOUNCED_SECONDS = 30  -- a task that is not claimed so long after it was announced is announced again

local function running_count(user) return redis.call('ZCARD', PREFIX .. 'tasks:user:' .. user .. ':running') end

-- Returns the task that holds a lock, or nil. A holder that is not running any more does not count.
local function lock_holder(lock)
  local id = redis.call('HGET', PREFIX .. 'locks', lock)
  if id and redis.call('HGET', task_key(id), 'state') == 'running' then return id end
  return nil
end

local function remove_waiter(queue, id)
  redis.call('ZREM', PREFIX .. 'waiting:' .. queue, id)
  if redis.call('EXISTS', PREFIX .. 'waiting:' .. queue) == 0 then redis.call('SREM', PREFIX .. 'waiting', queue) end
end

-- Removes a task from its wait queue, if it is in one. Its message has arrived, so it is not `unsent` either.
local function leave_wait_queue(id)
  redis.call('ZREM', PREFIX .. 'unsent', id)
  local queue = redis.call('HGET', task_key(id), 'waits_for')
  if not queue then return end
  redis.call('HDEL', task_key(id), 'waits_for', 'told')
  remove_waiter(queue, id)
end

-- Returns how many tasks of a wait queue may start now.
local function free_slots(queue)
  local lock = string.match(queue, '^lock:(.*)$')
  if lock then return lock_holder(lock) and 0 or 1 end
  local first = redis.call('ZRANGE', PREFIX .. 'waiting:' .. queue, 0, 0)[1]
  local most = first and tonumber(redis.call('HGET', task_key(first), 'max_running') or 0) or 0
  return most == 0 and 1 or most - running_count(string.sub(queue, 6))
end

-- Announces the first task of a wait queue that may start and was not announced yet: appends its id, summary and
-- queue to `ready`. The field `told` holds the time.
local function announce_next(queue, ready)
  local announced_after, free, rank = now_seconds() - ANNOUNCED_SECONDS, free_slots(queue), 0
  while rank < free do
    local id = redis.call('ZRANGE', PREFIX .. 'waiting:' .. queue, rank, rank)[1]
    if not id then return end
    local record = redis.call('HMGET', task_key(id), 'state', 'summary', 'told', 'queue')
    if record[1] ~= 'queued' then
      remove_waiter(queue, id)
    elseif not record[3] or tonumber(record[3]) < announced_after then
      redis.call('HSET', task_key(id), 'told', now_seconds())
      table.insert(ready, id)
      table.insert(ready, record[2])
      table.insert(ready, record[4] or 'default')
      return
    else
      rank = rank + 1
    end
  end
end
