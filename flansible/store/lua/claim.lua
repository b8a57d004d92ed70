-- Moves a queued task to running for one worker, or lets it wait. Of several workers that claim it, one wins.
--
--             claim                 move
--   queued ----------> running ----------> succeeded, failed, canceled, timed_out, lost, error
--     ^  |                |
--     |  | move           | move: lost, to be run again
--     |  +--> canceled, timed_out, lost, error
--     +-------------------+
--
-- The first of these steps that applies decides:
--   1. There is no record: {'missing'}.
--   2. The task is not queued: {its state}. But the same token claiming again (the first answer was lost) gets the
--      first answer again.
--   3. Another attempt than the wanted one is queued: {'begun again'}.
--   4. Its user has as many runs as allowed: it joins the wait queue `user:<user>`.
--   5. Another run holds one of its locks: it joins the wait queue `lock:<name>`.
--   6. It takes all its locks and a lease, and runs.
-- A claim of a wanted attempt skips 4 and 5: the run exists already and Redis has forgotten that.
--
-- KEYS: 1 the record, 2 its run, 3 flansible:leases, 4 flansible:locks, 5 flansible:waiting
-- ARGV: 1 token, 2 the time as text, 3 worker, 4 its process, 5 lease seconds, 6 the wanted attempt ('': any)
-- Returns {'claimed', run, attempt, output bytes, colours, events, end of the last event's output},
--   {'waits', why, id, summary, ...} with the tasks that may start in its place, or {state or reason}.
-- Derived keys: flansible:waiting:<queue>, the indexes of its states; those of common/changes and common/waiting.
-- include: keys
-- include: changes
-- include: waiting

local task, run, leases, locks_key, waiting = unpack(KEYS)
local token, started_at, worker, process, lease_seconds, wanted_attempt = unpack(ARGV)
local id = task_id(task)
local record = redis.call('HMGET', task, 'state', 'user', 'seq', 'claim', 'locks', 'attempt', 'max_running')
local state, user, seq, attempt = record[1], record[2], record[3], record[6] or '1'
local locks, most_running = decode(record[5]), tonumber(record[7] or 0)

local function claimed()
  local at = redis.call('HMGET', task, 'output_bytes', 'colours', 'events', 'events_end')
  return {'claimed', redis.call('GET', run), attempt, at[1], at[2] or '0', at[3], at[4] or '0'}
end

local function wait_in(queue, why)
  leave_wait_queue(id)
  redis.call('ZADD', PREFIX .. 'waiting:' .. queue, seq, id)
  redis.call('SADD', waiting, queue)
  redis.call('HSET', task, 'waits_for', queue)
  -- It may have been announced in a wait queue that it leaves here: the next one there is announced instead.
  local answer = {'waits', why}
  for _, lock in ipairs(locks) do
    if 'lock:' .. lock ~= queue then announce_next('lock:' .. lock, answer) end
  end
  if 'user:' .. user ~= queue then announce_next('user:' .. user, answer) end
  return answer
end

if not state then return {'missing'} end
if state ~= 'queued' then
  if state == 'running' and record[4] == token then return claimed() end
  return {state}
end
if wanted_attempt == '' then
  if most_running > 0 and running_count(user) >= most_running then return wait_in('user:' .. user, 'user_limit') end
  for _, lock in ipairs(locks) do
    local holder = lock_holder(lock)
    if holder then return wait_in('lock:' .. lock, 'locked_by: ' .. holder) end
  end
elseif attempt ~= wanted_attempt then
  return {'begun again'}
end
leave_wait_queue(id)
for _, lock in ipairs(locks) do redis.call('HSET', locks_key, lock, id) end
local started = now_seconds()
redis.call('HSET', task, 'state', 'running', 'claim', token, 'started_at', started_at, 'started', started,
           'worker', worker, 'process', process, 'description', 'running on ' .. worker)
redis.call('ZADD', leases, started + lease_seconds, id)
each_index(user, 'queued', function(index) redis.call('ZREM', index, id) end)
if redis.call('HEXISTS', task, 'hidden') == 0 then
  each_index(user, 'running', function(index) redis.call('ZADD', index, seq, id) end)
end
publish_change(id)
list_entry_changed(id)
return claimed()
