-- Locks, limits of users, and the queued tasks that wait for them or for hosts. Needs common/hosts.
--
-- A task that cannot be claimed yet joins one wait queue: `lock:<name>`, `user:<user>`, or `hosts:<task id>`, of the task
-- that holds it back by its hosts. When what it waits for
-- becomes free, the script that frees it announces the first waiters (at most as many as may start): it returns them
-- to its caller, which sends their messages again. An announced task stays in its wait queue until it is claimed, so
-- that no other task is announced in its place. One whose queue no live worker serves, or that no worker claims in time,
-- as all may be busy for hours, leaves it, and waits for a worker alone: all behind it would wait as long. Nothing is
-- announced twice: message_resend finds messages that are lost.
--
-- Derived keys: flansible:waiting, flansible:waiting:<queue>, flansible:locks, flansible:unsent,
-- flansible:tasks:user:<user>:running, records (fields state, waits_for, told, waits_host, max_running, summary, queue); those
-- of common/hosts.

local ANNOUNCED_SECONDS = 30  -- a task that is not claimed so long after it was announced does not hold its place any more
local MOST_ANNOUNCED = 100  -- of those that wait for the hosts of one task; the next look takes the rest

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

-- Removes a task that may start from its wait queue, as its message was sent. `told` stays: it is the time of that.
local function leave_to_workers(queue, id)
  redis.call('HDEL', task_key(id), 'waits_for', 'waits_host')
  remove_waiter(queue, id)
end

-- Removes a task from its wait queue, if it is in one. Its message has arrived, so it is not `unsent` either.
local function leave_wait_queue(id)
  redis.call('ZREM', PREFIX .. 'unsent', id)
  local queue, told = unpack(redis.call('HMGET', task_key(id), 'waits_for', 'told'), 1, 2)
  if queue or told then redis.call('HDEL', task_key(id), 'waits_for', 'told', 'waits_host') end
  if queue then remove_waiter(queue, id) end
end

-- Returns how many tasks of a wait queue may start now.
local function free_slots(queue)
  local lock = string.match(queue, '^lock:(.*)$')
  if lock then return lock_holder(lock) and 0 or 1 end
  local holder = string.match(queue, '^hosts:(.*)$')
  if holder then return holds_hosts(holder) and 0 or MOST_ANNOUNCED end
  local first = redis.call('ZRANGE', PREFIX .. 'waiting:' .. queue, 0, 0)[1]
  local most = first and tonumber(redis.call('HGET', task_key(first), 'max_running') or 0) or 0
  return most == 0 and 1 or most - running_count(string.sub(queue, 6))
end

-- Announces the first task of a wait queue that may start and was not announced yet: appends its id, summary and
-- queue to `ready`. The field `told` holds the time. Of those that wait for hosts, all that come before an exclusive one
-- may start, and that one: those behind it wait for it in most cases, and may not overtake it while its workers are busy.
-- Those that no live worker could claim are announced as well, and in nobody's place; while no worker is alive at all,
-- nobody else could start either.
local function announce_next(queue, ready)
  if redis.call('EXISTS', PREFIX .. 'waiting:' .. queue) == 0 then return end
  local announced_after, free, rank, left = now_seconds() - ANNOUNCED_SECONDS, free_slots(queue), 0, 0
  local are_many, unserved = string.sub(queue, 1, 6) == 'hosts:', {}
  while rank < free and left < MOST_ANNOUNCED do
    local id = redis.call('ZRANGE', PREFIX .. 'waiting:' .. queue, rank, rank)[1]
    if not id then return end
    local record = redis.call('HMGET', task_key(id), 'state', 'summary', 'told', 'queue', 'exclusive')
    if record[1] ~= 'queued' then
      remove_waiter(queue, id)
    else
      local is_new, is_first_alone = not record[3], are_many and record[5]
      local its_queue = record[4] or 'default'
      if unserved[its_queue] == nil then
        local served, are_alive = is_served(its_queue)
        unserved[its_queue] = are_alive and not served
      end
      if is_new then
        redis.call('HSET', task_key(id), 'told', now_seconds())
        table.insert(ready, id)
        table.insert(ready, record[2])
        table.insert(ready, its_queue)
      end
      if unserved[its_queue] or not is_new and not is_first_alone and tonumber(record[3]) < announced_after then
        leave_to_workers(queue, id)
        left = left + 1
      else
        if is_first_alone or is_new and not are_many then return end
        rank = rank + 1
      end
    end
  end
end
