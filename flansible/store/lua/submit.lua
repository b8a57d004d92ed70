-- Records a task as queued, unless its id or its idempotency key is known, or its user has too many queued tasks.
--
-- KEYS: 1 the record, 2 its run, 3 its secrets, 4 flansible:sequence, 5 flansible:tasks,
--       6 flansible:tasks:user:<user>, 7 flansible:tasks:user:<user>:queued, 8 flansible:unsent,
--       9 flansible:store, 10 the idempotency key (absent: none)
-- ARGV: 1 user, 2 the run as JSON, 3 the time as text, 4 kind, 5 summary, 6 sealed secrets, 7 locks as JSON,
--       8 on_lost, 9 most queued tasks of the user (0: no limit), 10 most runs of the user (0: no limit),
--       11 what it is about, as JSON, 12 seconds to keep a hidden task ('': not hidden), 13 digest of the request,
--       14 seconds to keep the idempotency key,
--       15 user and playbook whose play tasks are compared ('': an ad-hoc command, or a part of a playbook),
--       16 by what others may see it, and the entries of rbac.json that do, as JSON ('': none does),
--       17 seconds after which hosts that fail are tried again ('': they are not),
--       18 whether its request has a callback: 1 or '', 19 its queue ('': default),
--       20 whether no other run may be on its hosts: 1 or '', 21 its inventories, as common/hosts has them,
--       22 whether any sequence is good enough: 1 or ''
-- Returns {outcome, task id}: `submitted`; `known` (the same request was sent under this key, as that task);
--   `unsent` (likewise, but its process died before that task was on the queue: the caller puts it there);
--   `conflict` (another request was); `in_flight` (the same request is being submitted now); `full`; `no sequence`
--   (nothing is recorded: raise_sequence.lua has to say first where numbers begin, once for each run of Redis. One that
--   was put back begins with numbers that were given before).
-- Derived keys: flansible:tasks:state:queued, the indexes of the entries that see it, flansible:play_tasks; those of
--   common/changes and common/metrics.
-- include: keys
-- include: changes
-- include: metrics

local task, run, secrets, sequence, tasks, user_tasks, user_queued, unsent, store, idempotency = unpack(KEYS)
local user, run_json, submitted_at, kind, summary, sealed, locks, on_lost, most_queued, most_running, about,
      hidden_seconds, digest, idempotency_seconds, compared, visibility, retry, callback, queue, exclusive, places,
      any_sequence = unpack(ARGV)
local id = task_id(task)
if redis.call('EXISTS', task) == 1 then return {'submitted', id} end
local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
local is_numbered = any_sequence ~= '' or redis.call('HGET', store, 'numbered') == run_id
if not is_numbered or redis.call('EXISTS', sequence) == 0 then return {'no sequence', id} end
if idempotency then
  local first = redis.call('HMGET', idempotency, 'task', 'digest', 'enqueued', 'at')
  if first[1] then
    if first[2] ~= digest then return {'conflict', first[1]} end
    -- Not on the queue yet: another request is about to put it there, or its process has died.
    if not first[3] then
      if now_seconds() - tonumber(first[4]) < 30 then return {'in_flight', first[1]} end
      if redis.call('HGET', task_key(first[1]), 'state') == 'queued' then return {'unsent', first[1]} end
    end
    return {'known', first[1]}
  end
end
most_queued = tonumber(most_queued)
if most_queued > 0 and redis.call('ZCARD', user_queued) >= most_queued then return {'full', ''} end
if idempotency then
  redis.call('HSET', idempotency, 'task', id, 'digest', digest, 'at', now_seconds())
  redis.call('EXPIRE', idempotency, idempotency_seconds)
end
local seq = redis.call('INCR', sequence)
redis.call('HSET', task, 'seq', seq, 'user', user, 'kind', kind, 'summary', summary, 'state', 'queued',
           'description', 'waiting for a worker', 'submitted_at', submitted_at, 'output_bytes', 0, 'colours', 0,
           'events', 0, 'locks', locks, 'on_lost', on_lost, 'max_running', most_running, 'attempt', 1,
           'idempotency', idempotency or '', 'about', about, 'submitted', now_seconds(), 'places', places)
if queue ~= '' then redis.call('HSET', task, 'queue', queue) end
if exclusive ~= '' then redis.call('HSET', task, 'exclusive', 1) end
redis.call('SET', run, run_json)
if #sealed > 0 then redis.call('SET', secrets, sealed) end
if compared ~= '' then
  redis.call('HSET', task, 'compared', compared)
  local expected = redis.call('HGET', PREFIX .. 'play_tasks', compared)
  if expected then redis.call('HSET', task, 'expected_play_tasks', expected) end
end
if hidden_seconds ~= '' then
  -- In no index: only the process that submitted it reads it. Should that process die, the keys expire.
  redis.call('HSET', task, 'hidden', hidden_seconds)
  for _, key in ipairs({task, run, secrets}) do redis.call('EXPIRE', key, hidden_seconds) end
  return {'submitted', id}
end
count_metric('submitted:' .. kind, 1)
if callback ~= '' then redis.call('HSET', task, 'callback', 1) end
if visibility ~= '' then redis.call('HSET', task, 'visibility', visibility) end
if retry ~= '' then redis.call('HSET', task, 'retry', retry) end
local function join(index) redis.call('ZADD', index, seq, id) end
for _, index in ipairs({tasks, user_tasks, unsent}) do join(index) end
each_entry_index(id, '', join)
each_index(id, user, 'queued', join)
list_entry_changed(id)
return {'submitted', id}
