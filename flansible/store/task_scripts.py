"""Lua scripts that decide over task records. What each takes, and gives, stands above it.

Those that only look are in flansible.store.search_scripts.
"""

from flansible.store.day_statistics import COUNT_END
from flansible.store.lua import COMMON

# ARGV: id, user, run, now, kind, summary, sealed secrets, locks (JSON), on_lost, most queued tasks (0: any number),
# idempotency key ('' none), digest of the request, seconds the key is kept, most runs of the user, what it is about,
# seconds that a hidden task is kept ('' when it is none).
# Gives {what, task id}.
SUBMIT = (
    COMMON
    + """
local id, user, run, now, key = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[11]
local task = task_key(id)
if redis.call('EXISTS', task) == 1 then return {'submitted', id} end
if key ~= '' then
  key = P .. 'idempotency:' .. user .. ':' .. key
  local known = redis.call('HMGET', key, 'task', 'digest', 'enqueued', 'at')
  if known[1] then
    if known[2] ~= ARGV[12] then return {'conflict', known[1]} end
    -- Not on the queue yet: another request is about to put it there, or has died over it.
    if not known[3] and seconds() - tonumber(known[4]) < 30 then return {'in_flight', known[1]} end
    return {'known', known[1]}
  end
end
local most = tonumber(ARGV[10])
if most > 0 and redis.call('ZCARD', P .. 'tasks:user:' .. user .. ':queued') >= most then return {'full', ''} end
if key ~= '' then
  redis.call('HSET', key, 'task', id, 'digest', ARGV[12], 'at', seconds())
  redis.call('EXPIRE', key, ARGV[13])
end
local seq = redis.call('INCR', P .. 'sequence')
redis.call('HSET', task, 'seq', seq, 'user', user, 'kind', ARGV[5], 'summary', ARGV[6], 'state', 'queued',
           'description', 'waiting for a worker', 'submitted_at', now, 'output_bytes', 0, 'colours', 0, 'events', 0,
           'locks', ARGV[8], 'on_lost', ARGV[9], 'max_running', ARGV[14], 'attempt', 1, 'idempotency', key,
           'about', ARGV[15])
redis.call('SET', task .. ':run', run)
if #ARGV[7] > 0 then redis.call('SET', task .. ':secrets', ARGV[7]) end
if ARGV[16] ~= '' then
  -- In no index: whoever submitted it waits for it, and nobody else ever asks. Should they die, it goes by itself.
  redis.call('HSET', task, 'hidden', ARGV[16])
  for _, name in ipairs({task, task .. ':run', task .. ':secrets'}) do redis.call('EXPIRE', name, ARGV[16]) end
  return {'submitted', id}
end
redis.call('ZADD', P .. 'tasks', seq, id)
redis.call('ZADD', P .. 'tasks:user:' .. user, seq, id)
redis.call('ZADD', P .. 'unsent', seq, id)
each_index(user, 'queued', function(index) redis.call('ZADD', index, seq, id) end)
listed(id)
return {'submitted', id}
"""
)

# ARGV: id. The task's message is on the queue; its idempotency key may be answered with it from now on.
ENQUEUED = (
    COMMON
    + """
redis.call('ZREM', P .. 'unsent', ARGV[1])
local key = redis.call('HGET', task_key(ARGV[1]), 'idempotency')
if key and key ~= '' and redis.call('HGET', key, 'task') == ARGV[1] then redis.call('HSET', key, 'enqueued', 1) end
"""
)

# ARGV: id. Forgets a queued task.
DISCARD = (
    COMMON
    + """
local id = ARGV[1]
local task = task_key(id)
local known = redis.call('HMGET', task, 'state', 'user', 'idempotency')
if known[1] ~= 'queued' then return 0 end
if known[3] and known[3] ~= '' and redis.call('HGET', known[3], 'task') == id then redis.call('DEL', known[3]) end
leave_line(id)
redis.call('DEL', task, unpack(parts_of(id)))
redis.call('ZREM', P .. 'tasks', id)
redis.call('ZREM', P .. 'tasks:user:' .. known[2], id)
each_index(known[2], 'queued', function(index) redis.call('ZREM', index, id) end)
return 1
"""
)

# ARGV: id, token, now, worker, its process, lease seconds, attempt ('' any; else it runs already and Redis forgot that,
# so nothing that it would have to wait for counts any more).
# Gives {'claimed', run, attempt, output bytes, colours, events, end of the last event's output},
# {'waits', why, id, summary, ...} with those who may try now, or {state}.
CLAIM = (
    COMMON
    + """
local id, token = ARGV[1], ARGV[2]
local task = task_key(id)
local known = redis.call('HMGET', task, 'state', 'user', 'seq', 'claim', 'locks', 'attempt', 'max_running')
local state, user, seq, attempt = known[1], known[2], known[3], known[6] or '1'
if not state then return {'missing'} end
local function claimed()
  local at = redis.call('HMGET', task, 'output_bytes', 'colours', 'events', 'events_end')
  return {'claimed', redis.call('GET', task .. ':run'), attempt, at[1], at[2] or '0', at[3], at[4] or '0'}
end
if state ~= 'queued' then
  -- The same claim made again, because its answer was lost, is answered as it was.
  if state == 'running' and known[4] == token then return claimed() end
  return {state}
end
if ARGV[7] ~= '' and attempt ~= ARGV[7] then return {'begun again'} end
local locks = list(known[5])
local function wait_in_line(name, why)
  leave_line(id)
  redis.call('ZADD', P .. 'waiting:' .. name, seq, id)
  redis.call('SADD', P .. 'waiting', name)
  redis.call('HSET', task, 'waits_for', name)
  -- It may have been the one told that something is free, and leaves it: the next in line must be told then.
  local answer = {'waits', why}
  local function wake(other)
    local waiter = other ~= name and next_waiter(other)
    if waiter then
      table.insert(answer, waiter[1])
      table.insert(answer, waiter[2])
    end
  end
  for _, lock in ipairs(locks) do wake('lock:' .. lock) end
  wake('user:' .. user)
  return answer
end
local most, again = tonumber(known[7] or 0), ARGV[7] ~= ''
if most > 0 and not again and running_of(user) >= most then return wait_in_line('user:' .. user, 'user_limit') end
for _, lock in ipairs(locks) do
  local holder = not again and holder_of(lock)
  if holder then return wait_in_line('lock:' .. lock, 'locked_by: ' .. holder) end
end
leave_line(id)
for _, lock in ipairs(locks) do redis.call('HSET', P .. 'locks', lock, id) end
local time = seconds()
redis.call('HSET', task, 'state', 'running', 'claim', token, 'started_at', ARGV[3], 'started', time,
           'worker', ARGV[4], 'process', ARGV[5], 'description', 'running on ' .. ARGV[4])
redis.call('ZADD', P .. 'leases', time + ARGV[6], id)
each_index(user, 'queued', function(index) redis.call('ZREM', index, id) end)
if redis.call('HEXISTS', task, 'hidden') == 0 then
  each_index(user, 'running', function(index) redis.call('ZADD', index, seq, id) end)
end
changed(id)
listed(id)
return claimed()
"""
)

# ARGV: id, new state, legal old states (comma-separated), seconds it is kept ('' when not final), condition
# ('lapsed': only when its lease has; 'claim:<token>': only this claim's; ''), now, field, value, ...
# Gives {'moved', id, summary, ...} with those who may try to run now, or {what stood against it}.
MOVE = (
    COMMON
    + COUNT_END
    + """
local id, to, condition = ARGV[1], ARGV[2], ARGV[5]
local task = task_key(id)
local time = seconds()
if condition == 'lapsed' then
  local lease = redis.call('ZSCORE', P .. 'leases', id)
  if not lease or tonumber(lease) > time then return {'alive'} end
end
local known = redis.call('HMGET', task, 'state', 'user', 'seq', 'locks', 'claim', 'started', 'hidden')
local from, user, seq, hidden = known[1], known[2], known[3], known[7]
if not from then
  redis.call('ZREM', P .. 'leases', id)
  return {'missing'}
end
if string.sub(condition, 1, 6) == 'claim:' and known[5] ~= string.sub(condition, 7) then
  return {known[5] and 'begun again' or from}
end
if not string.find(',' .. ARGV[3] .. ',', ',' .. from .. ',', 1, true) then return {from} end
-- A cancel that was asked for while the run was being given up must not be forgotten.
if to == 'queued' and redis.call('HEXISTS', task, 'cancel_by') == 1 then return {'to be canceled'} end
redis.call('HSET', task, 'state', to)
for i = 7, #ARGV, 2 do redis.call('HSET', task, ARGV[i], ARGV[i + 1]) end
redis.call('ZREM', P .. 'leases', id)
each_index(user, from, function(index) redis.call('ZREM', index, id) end)
if not hidden then each_index(user, to, function(index) redis.call('ZADD', index, seq, id) end) end
local answer = {'moved'}
if from == 'running' then answer = {'moved', unpack(release(id, user, known[4]))} end
local now = redis.call('HMGET', task, 'description', 'returncode', 'attempt')
if to == 'queued' then
  redis.call('HDEL', task, 'claim', 'worker', 'process', 'started_at', 'started', 'stats_seq', 'counts')
  redis.call('HINCRBY', task, 'attempt', 1)
  redis.call('DEL', task .. ':hosts', task .. ':by_host')
  add_event(id, {event = 'restart', time = ARGV[6], description = now[1]})
elseif ARGV[4] ~= '' then
  leave_line(id)
  redis.call('DEL', task .. ':secrets')
  add_event(id, {event = 'final', time = ARGV[6], state = to, description = now[1],
                 returncode = now[2] and tonumber(now[2]) or nil})
  if from == 'running' and (to == 'succeeded' or to == 'failed') and not hidden then
    local mean = tonumber(redis.call('HGET', P .. 'durations', 'mean') or '')
    local took = time - tonumber(known[6] or time)
    redis.call('HSET', P .. 'durations', 'mean', mean and mean * 0.8 + took * 0.2 or took)
  end
  local size = redis.call('HMGET', task, 'output_bytes', 'event_bytes', 'colours')
  local bytes = tonumber(size[1]) + tonumber(size[2] or 0) + 16 * tonumber(size[3] or 0)
                + redis.call('STRLEN', task .. ':run')
  local expires = math.floor(time) + (hidden or ARGV[4])
  for _, key in ipairs(parts_of(id)) do redis.call('EXPIREAT', key, expires) end
  redis.call('EXPIREAT', task, expires)
  if not hidden then
    redis.call('ZADD', P .. 'expiring', expires, id .. ' ' .. user .. ' ' .. to .. ' ' .. bytes)
    redis.call('INCRBY', P .. 'stored_bytes', bytes)
    count_end(id, user, to, tonumber(known[6]) and time - tonumber(known[6]))
  end
end
changed(id)
listed(id)
return answer
"""
)

# ARGV: id, user. Asks the worker that runs the task to end it; who asked first is kept.
ASK_TO_CANCEL = (
    COMMON
    + """
local state = redis.call('HGET', task_key(ARGV[1]), 'state')
if state == 'running' then redis.call('HSETNX', task_key(ARGV[1]), 'cancel_by', ARGV[2]) end
return state
"""
)

# ARGV: most to look at. Those in line for something that is free, though nobody has told them: {id, summary, ...}.
WAKE = (
    COMMON
    + """
local woken = {}
for _, name in ipairs(redis.call('SRANDMEMBER', P .. 'waiting', ARGV[1])) do
  local waiter = next_waiter(name)
  if waiter then
    table.insert(woken, waiter[1])
    table.insert(woken, waiter[2])
  end
end
return woken
"""
)

# ARGV: lease seconds, worker, its slots, id, id, ... What is no longer running has no lease and gets none. Lists are
# told of results that came too soon after others to be told at once.
RENEW = (
    COMMON
    + """
local time = seconds()
for i = 4, #ARGV do
  redis.call('ZADD', P .. 'leases', 'XX', time + ARGV[1], ARGV[i])
  if redis.call('HDEL', task_key(ARGV[i]), 'unlisted') == 1 then listed(ARGV[i]) end
end
redis.call('ZADD', P .. 'workers', time + ARGV[1], ARGV[2])
redis.call('HSET', P .. 'workers:slots', ARGV[2], ARGV[3])
for _, name in ipairs(redis.call('ZRANGEBYSCORE', P .. 'workers', '-inf', time - 3600)) do
  redis.call('ZREM', P .. 'workers', name)
  redis.call('HDEL', P .. 'workers:slots', name)
end
for _, key in ipairs({'workers', 'workers:slots'}) do redis.call('EXPIRE', P .. key, 3600) end
"""
)

# ARGV: 'all' or 'lapsed'. Runs, 1,000 at most: {id, claim, process, worker, id, ...}.
RUNS = (
    COMMON
    + """
local highest = ARGV[1] == 'lapsed' and seconds() or '+inf'
local found = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. 'leases', '-inf', highest, 'LIMIT', 0, 1000)) do
  local known = redis.call('HMGET', task_key(id), 'claim', 'process', 'worker')
  for _, value in ipairs({id, known[1] or '', known[2] or '', known[3] or ''}) do table.insert(found, value) end
end
return found
"""
)

# ARGV: most to remove, most final tasks, most bytes of them (0: any number).
PRUNE = (
    COMMON
    + """
local expiring, left = P .. 'expiring', tonumber(ARGV[1])
local function forget(member, delete)
  local id, user, state, bytes = string.match(member, '^(%S+) (.+) (%l[%l_]*) (%d+)$')
  if not id then
    id, user, state = string.match(member, '^(%S+) (.+) (%l[%l_]*)$')  -- as version 0.1.0 wrote it
    bytes = 0
  end
  if not id then return redis.call('ZREM', expiring, member) end
  if delete then
    for _, key in ipairs(parts_of(id)) do redis.call('UNLINK', key) end
    redis.call('UNLINK', task_key(id))
  end
  redis.call('ZREM', P .. 'tasks', id)
  redis.call('ZREM', P .. 'tasks:user:' .. user, id)
  each_index(user, state, function(index) redis.call('ZREM', index, id) end)
  redis.call('ZREM', expiring, member)
  redis.call('DECRBY', P .. 'stored_bytes', bytes)
  left = left - 1
end
local due = redis.call('ZRANGEBYSCORE', expiring, '-inf', seconds(), 'LIMIT', 0, left)
for _, member in ipairs(due) do forget(member) end
local most, most_bytes = tonumber(ARGV[2]), tonumber(ARGV[3])
while left > 0 do
  local many = most > 0 and redis.call('ZCARD', expiring) > most
  local big = most_bytes > 0 and tonumber(redis.call('GET', P .. 'stored_bytes') or 0) > most_bytes
  local oldest = (many or big) and redis.call('ZRANGE', expiring, 0, 0)[1]
  if not oldest then break end
  forget(oldest, true)
end
return tonumber(ARGV[1]) - left
"""
)
