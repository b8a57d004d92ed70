-- Deletes a queued task, its idempotency key and its index entries.
--
-- KEYS: 1 the record, 2 flansible:tasks
-- ARGV: 1 output bytes per segment, 2 colours per segment
-- Returns 1, or 0 when the task is not queued.
-- Derived keys: the idempotency key that the record names, flansible:tasks:user:<user>, the indexes of its state and of the
--   entries that see it, the task's other keys; those of common/waiting.
-- include: keys
-- include: queues
-- include: hosts
-- include: waiting
-- include: record_keys

local task, tasks = unpack(KEYS)
local id = task_id(task)
local state, user, idempotency = unpack(redis.call('HMGET', task, 'state', 'user', 'idempotency'))
if state ~= 'queued' then return 0 end
if idempotency and idempotency ~= '' and redis.call('HGET', idempotency, 'task') == id then
  redis.call('DEL', idempotency)
end
leave_wait_queue(id)
local function leave(index) redis.call('ZREM', index, id) end
leave(tasks)
leave(PREFIX .. 'tasks:user:' .. user)
each_entry_index(id, '', leave)
each_index(id, user, 'queued', leave)
redis.call('DEL', task, unpack(record_keys(id, ARGV[1], ARGV[2])))
return 1
