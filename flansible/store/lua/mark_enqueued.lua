-- Records that the task's message is on the queue; from now on its idempotency key may be answered with this task.
--
-- KEYS: 1 the record, 2 flansible:unsent
-- ARGV: none
-- Derived keys: the idempotency key that the record names.
-- include: keys

local task, unsent = unpack(KEYS)
local id = task_id(task)
redis.call('ZREM', unsent, id)
local key = redis.call('HGET', task, 'idempotency')
if key and key ~= '' and redis.call('HGET', key, 'task') == id then redis.call('HSET', key, 'enqueued', 1) end
