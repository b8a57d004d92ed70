-- Reads a task's status and, while it is queued, what it waits for.
--
-- The most frequent script. For a task that is not queued it ends before the common parts, which would define
-- functions at each call; the fields stand here as each argument of a script takes time as well. A test holds them to
-- STATUS_FIELDS in flansible/store/status.py.
--
-- KEYS: 1 the record
-- ARGV: none
-- Returns {values} or, for a queued task, {values, {position in the queue, why it waits ('': for a worker), slots of
--   live workers of its queue, runs, mean seconds of a run, the time now, start of the run that holds its lock or hosts,
--   how many are before it in its wait queue, how many runs its user may have, a host that it waits for}}.
-- Derived keys, of a queued task alone: flansible:workers, flansible:workers:slots, flansible:tasks:state:queued,
--   flansible:tasks:state:running, flansible:durations, the record of who holds its lock or hosts; those of
--   common/hosts and common/waiting.

local values = redis.call('HMGET', KEYS[1], 'state', 'description', 'returncode', 'user', 'kind', 'summary',
                          'submitted_at', 'started_at', 'finished_at', 'attempt', 'ended', 'about', 'counts', 'warning',
                          'play_task', 'expected_play_tasks', 'visibility', 'queue')
if values[1] ~= 'queued' then return {values} end
-- include: keys
-- include: queues
-- include: hosts
-- include: waiting

local id = task_id(KEYS[1])
local waits_for, announced, max_running = unpack(redis.call('HMGET', KEYS[1], 'waits_for', 'told', 'max_running'))
local why, holder, host, slots, busy, all_serve = '', nil, '', 0, 0, true
local queue = not announced and waits_for or ''
local lock = string.match(queue, '^lock:(.*)$')
if lock then
  -- The holder of now, not that of when this task began to wait.
  holder = lock_holder(lock)
  why = holder and 'locked_by: ' .. holder or ''
elseif string.sub(queue, 1, 6) == 'hosts:' then
  holder = string.sub(queue, 7)
  if holds_hosts(holder) then
    why, host = 'host_held_by: ' .. holder, redis.call('HGET', KEYS[1], 'waits_host') or ''
  end
elseif queue ~= '' then
  why = 'user_limit'
end
for _, name in ipairs(redis.call('ZRANGEBYSCORE', PREFIX .. 'workers', now_seconds(), '+inf')) do
  local entry = redis.call('HGET', PREFIX .. 'workers:slots', name) or ''
  if serves(entry, queue_of(id)) then
    local count, runs = string.match(entry, '^(%d+) (%d+)')
    slots, busy = slots + (count or 0), busy + (runs or 0)
  else
    all_serve = false
  end
end
local holder_started = holder and redis.call('HGET', task_key(holder), 'started')
local rank = redis.call('ZRANK', PREFIX .. 'tasks:state:queued', id)
local running = all_serve and math.max(busy, redis.call('ZCARD', PREFIX .. 'tasks:state:running')) or busy
return {values, {(rank or 0) + 1, why, slots, running,
                 redis.call('HGET', PREFIX .. 'durations', 'mean') or '', tostring(now_seconds()),
                 holder_started or '', redis.call('ZRANK', PREFIX .. 'waiting:' .. queue, id) or 0,
                 max_running or 0, host}}
