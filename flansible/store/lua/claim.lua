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
--   2. The same nonce claims again (the first answer was lost): the lease begins anew, with the first answer.
--   3. A claim is restored, which this Redis has lost (common/continuity): it is taken over as it was, over a claim
--      with a lower token if there is one, but for locks that another run has got meanwhile. Without having been lost
--      it is refused, as common/claims says.
--   4. The task is not queued: {its state}.
--   5. A worker may still have a claim that this Redis has lost: {'reports are awaited'}.
--   6. Its user has as many runs as allowed: it joins the wait queue `user:<user>`.
--   7. Another run holds one of its locks: it joins the wait queue `lock:<name>`.
--   8. Its hosts have to be known, and are not: {'hosts are needed'}. Its worker finds them, and claims again.
--   9. A task holds it back by its hosts (common/hosts): it joins the wait queue `hosts:<task id>`.
--  10. It takes all its locks, a token and a lease, and runs.
--
-- KEYS: 1 the record, 2 its run, 3 flansible:leases, 4 flansible:locks, 5 flansible:waiting
-- ARGV: 1 nonce, 2 the time as text, 3 worker, 4 its process, 5 lease seconds, 6 token of the claim to restore
--       ('': a new claim), 7 its attempt
-- Returns {'claimed', run, token, attempt, output bytes, colours, events, end of the last event's output},
--   {'waits', why, id, summary, queue, ...} with the tasks that may start in its place, or {state or reason}.
-- Derived keys: flansible:waiting:<queue>, the indexes of its states; those of common/changes, common/continuity and
--   common/hosts, common/waiting, common/metrics and common/outbox.
-- include: keys
-- include: changes
-- include: claims
-- include: continuity
-- include: metrics
-- include: outbox
-- include: queues
-- include: hosts
-- include: waiting

local task, run, leases, locks_key, waiting = unpack(KEYS)
local nonce, started_at, worker, process, lease_seconds, restored, restored_attempt = unpack(ARGV)
local id = task_id(task)
local record = redis.call('HMGET', task, 'state', 'user', 'seq', 'claim', 'locks', 'attempt', 'max_running', 'token',
                          'exclusive', 'hosts_at', 'waits_for')
local state, user, seq, claim, locks, attempt, most_running, token, exclusive, hosts_at, waited_for = unpack(record, 1, 11)
locks, most_running = decode(locks), tonumber(most_running or 0) or 0
user, seq = user or '', seq or 0  -- of a damaged record, which its worker ends

local function begin_lease() redis.call('ZADD', leases, now_seconds() + lease_seconds, id) end

local function claimed()
  local at = redis.call('HMGET', task, 'output_bytes', 'colours', 'events', 'events_end', 'attempt')
  return {'claimed', redis.call('GET', run), token, at[5] or '1', at[1], at[2] or '0', at[3], at[4] or '0'}
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
  if exclusive and string.sub(queue, 1, 6) ~= 'hosts:' then
    -- What it waits for now may take long, and others do not wait for that.
    redis.call('ZREM', PREFIX .. 'exclusive', id)
    announce_next('hosts:' .. id, answer)
  end
  return answer
end

if not state then return {'missing'} end
check_continuity()
if state == 'running' and claim == nonce then
  begin_lease()
  return claimed()
end
if restored ~= '' then
  local standing = standing_of(restored, state, token)
  if standing ~= 'forgotten' then return {standing} end
  token, attempt = restored, restored_attempt
else
  if state ~= 'queued' then return {state} end
  if awaits_reports() then return {'reports are awaited'} end
  if most_running > 0 and running_count(user) >= most_running then return wait_in('user:' .. user, 'user_limit') end
  for _, lock in ipairs(locks) do
    local holder = lock_holder(lock)
    if holder then return wait_in('lock:' .. lock, 'locked_by: ' .. holder) end
  end
  local holder, host = find_host_holder(id, seq, exclusive)
  if holder == 'unknown' then return {'hosts are needed'} end
  if holder then
    local answer = wait_in('hosts:' .. holder, 'host_held_by: ' .. holder)
    if host ~= '' then redis.call('HSET', task, 'waits_host', host) end
    if exclusive then redis.call('ZADD', PREFIX .. 'exclusive', seq, id) end
    return answer
  end
  token = next_token()
  -- Its files may have changed since its hosts were found: it counts as on all.
  if hosts_at and not reach_of(id).is_fresh then redis.call('HDEL', task, 'host_set', 'hosts_at') end
end
leave_wait_queue(id)
if exclusive then
  redis.call('ZADD', PREFIX .. 'exclusive', seq, id)
  -- Those that wait there still were behind this one; its end announces the next of them.
  if string.sub(waited_for or '', 1, 6) == 'hosts:' then redis.call('HSET', task, 'came_from', waited_for) end
end
for _, lock in ipairs(locks) do
  -- One that is restored after its lease was over has ended its run, and its lock may be another's.
  local holder = restored ~= '' and lock_holder(lock)
  if not holder or holder == id then redis.call('HSET', locks_key, lock, id) end
end
redis.call('HSET', task, 'state', 'running', 'claim', nonce, 'token', token, 'lease', lease_seconds, 'attempt', attempt or 1,
           'started_at', started_at, 'started', now_seconds(), 'worker', worker, 'process', process,
           'description', 'running on ' .. worker)
redis.call('HDEL', task, 'silent')
begin_lease()
each_index(id, user, 'queued', function(index) redis.call('ZREM', index, id) end)
local kind, submitted, hidden = unpack(redis.call('HMGET', task, 'kind', 'submitted', 'hidden'))
if not hidden then
  if restored == '' and submitted and number(attempt or 1) == 1 then
    observe_seconds('wait:' .. (kind or ''), now_seconds() - tonumber(submitted))
    add_to_outbox(id, 'started', 'running', '')
  end
  each_index(id, user, 'running', function(index) redis.call('ZADD', index, seq, id) end)
end
publish_change(id)
list_entry_changed(id)
return claimed()
