-- Moves a task to another state, but for queued to running (claim.lua, which draws the state machine): makes it final,
-- or queues a lost run again.
--
-- The first of these steps that applies refuses the move:
--   1. Condition `lapsed`, but the task has a valid lease or none: {'alive'}.
--   2. There is no record: {'missing'}; a lease of it is removed.
--   3. Condition `claim:<token>`, but that claim does not have the task: {what common/claims says}.
--   4. The state is not one of the legal ones: {state}.
--   5. To queued, but a cancel was requested meanwhile: {'to be canceled'}. It must not be forgotten.
-- Otherwise, in this order: the state and the given fields are written; its lease ends; it changes the indexes; after
-- a run its locks, hosts and its user's slot are free, and the next tasks are announced. Then
--   to queued: what this attempt has left in the record is cleared, the attempt counted, an event `restart` added;
--     output and events stay.
--   final: it leaves its wait queue, loses its secrets, gets the event `final`, the mean duration takes in its run,
--     every key of it gets the expiry, and statistics and sizes count it (a hidden task is in neither).
--
-- KEYS: 1 the record, 2 its run, 3 its secrets, 4 its events, 5 its hosts, 6 its by_host, 7 flansible:leases,
--       8 flansible:locks, 9 flansible:expiring, 10 flansible:stored_bytes, 11 flansible:durations
-- ARGV: 1 new state, 2 legal old states (comma-separated), 3 seconds to keep it ('': not final),
--       4 condition (`lapsed`, `claim:<token>` or ''), 5 the time as text, 6 output bytes per segment,
--       7 colours per segment, then field, value, ...
-- Returns {'moved', id, summary, queue, ...} with the tasks that may start now, or {why not}.
-- Derived keys: the indexes of its states, the task's output and colours, flansible:play_tasks, flansible:visibility,
--   flansible:retries; those of common/changes, common/continuity, common/hosts, common/waiting, common/day_counts,
--   common/metrics and common/outbox.
-- include: keys
-- include: changes
-- include: claims
-- include: continuity
-- include: queues
-- include: hosts
-- include: waiting
-- include: record_keys
-- include: day_counts
-- include: metrics
-- include: outbox

local task, run, secrets, events, hosts, by_host, leases, locks_key, expiring, stored_bytes, durations = unpack(KEYS)
local to, legal, keep_seconds, condition, at, segment_bytes, colours_per_segment = unpack(ARGV, 1, 7)
local id = task_id(task)
local time = now_seconds()
if condition == 'lapsed' then
  check_continuity()
  local lease = redis.call('ZSCORE', leases, id)
  if not lease or tonumber(lease) > time then return {'alive'} end
end
local record = redis.call('HMGET', task, 'state', 'user', 'seq', 'locks', 'token', 'started', 'hidden', 'kind',
                          'came_from')
local from, user, seq, locks, token, started, hidden, kind, came_from = unpack(record, 1, 9)
if not from then
  redis.call('ZREM', leases, id)
  return {'missing'}
end
user, seq = user or '', seq or 0  -- of a damaged record, which has to come to an end as well
if string.sub(condition, 1, 6) == 'claim:' then
  local standing = standing_of(string.sub(condition, 7), from, token)
  if standing ~= 'running' then return {standing} end
end
if not string.find(',' .. legal .. ',', ',' .. from .. ',', 1, true) then return {from} end
if to == 'queued' and redis.call('HEXISTS', task, 'cancel_by') == 1 then return {'to be canceled'} end

-- Frees what the run held, and announces who may start.
local function release(answer)
  for _, lock in ipairs(decode(locks)) do
    if redis.call('HGET', locks_key, lock) == id then
      redis.call('HDEL', locks_key, lock)
      announce_next('lock:' .. lock, answer)
    end
  end
  announce_next('user:' .. user, answer)
  announce_next('hosts:' .. id, answer)
  if came_from then announce_next(came_from, answer) end
end

-- Adds an event that the record makes itself. Its output reaches from the last event's to the end.
local function add_event(fields)
  local size = redis.call('HMGET', task, 'events_end', 'output_bytes')
  fields.output_start, fields.output_end = number(size[1]), number(size[2])
  local number = redis.call('HINCRBY', task, 'events', 1)
  redis.call('XADD', events, number .. '-0', 'event', cjson.encode(fields))
  redis.call('HSET', task, 'events_end', size[2] or 0)
end

local function requeue(description)
  redis.call('HDEL', task, 'claim', 'silent', 'worker', 'process', 'started_at', 'started', 'stats_seq', 'counts',
             'play_task', 'host_set', 'hosts_at')
  redis.call('HINCRBY', task, 'attempt', 1)
  redis.call('DEL', hosts, by_host)
  add_event({event = 'restart', time = at, description = description})
end

-- Keeps how many play tasks this user's run of the whole playbook had: the next one is compared with it. A full table
-- begins anew.
local function keep_play_tasks()
  local values = redis.call('HMGET', task, 'compared', 'counts')
  local compared, count, key = values[1], decode(values[2]).play_tasks, PREFIX .. 'play_tasks'
  if not compared or not count then return end
  if redis.call('HLEN', key) >= 5000 then redis.call('DEL', key) end
  redis.call('HSET', key, compared, count)
  redis.call('EXPIRE', key, 100 * 86400)
end

local function finish(description, returncode)
  leave_wait_queue(id)
  redis.call('DEL', secrets)
  redis.call('HDEL', task, 'play_task', 'expected_play_tasks')
  redis.call('HSET', task, 'finished', time)
  add_event({event = 'final', time = at, state = to, description = description,
             returncode = returncode and tonumber(returncode) or nil})
  if from == 'running' and (to == 'succeeded' or to == 'failed') and not hidden then
    local mean = tonumber(redis.call('HGET', durations, 'mean') or '')
    local took = time - tonumber(started or time)
    redis.call('HSET', durations, 'mean', mean and mean * 0.8 + took * 0.2 or took)
  end
  local size = redis.call('HMGET', task, 'output_bytes', 'event_bytes', 'colours')
  local bytes = number(size[1]) + number(size[2]) + 16 * number(size[3]) + redis.call('STRLEN', run)
  local expires = math.floor(time) + (hidden or keep_seconds)
  for _, key in ipairs(record_keys(id, segment_bytes, colours_per_segment)) do
    redis.call('EXPIREAT', key, expires)
  end
  redis.call('EXPIREAT', task, expires)
  if not hidden then
    redis.call('ZADD', expiring, expires, id .. ' ' .. user .. ' ' .. to .. ' ' .. bytes)
    redis.call('INCRBY', stored_bytes, bytes)
    local visibility = redis.call('HGET', task, 'visibility')
    if visibility then redis.call('HSET', PREFIX .. 'visibility', id, visibility) end
    count_final(id, user, to, tonumber(started) and time - tonumber(started))
    count_metric('tasks:' .. (kind or '') .. ':' .. to, 1)
    if from == 'running' then observe_seconds('run:' .. (kind or ''), time - number(started)) end
    add_to_outbox(id, 'final', to, exchange_outcome(id, to))
    if to == 'succeeded' then keep_play_tasks() end
    local retry = redis.call('HGET', task, 'retry')
    if retry and to == 'failed' then redis.call('ZADD', PREFIX .. 'retries', time + retry, id) end
  end
end

redis.call('HSET', task, 'state', to)
for i = 8, #ARGV, 2 do redis.call('HSET', task, ARGV[i], ARGV[i + 1]) end
redis.call('ZREM', leases, id)
redis.call('ZREM', PREFIX .. 'exclusive', id)
each_index(id, user, from, function(index) redis.call('ZREM', index, id) end)
if not hidden then each_index(id, user, to, function(index) redis.call('ZADD', index, seq, id) end) end
local answer = {'moved'}
if from == 'running' then release(answer) end
local now = redis.call('HMGET', task, 'description', 'returncode')
if to == 'queued' then requeue(now[1]) elseif keep_seconds ~= '' then finish(now[1], now[2]) end
publish_change(id)
list_entry_changed(id)
return answer
