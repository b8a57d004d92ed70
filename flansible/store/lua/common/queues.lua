-- Queues: which of them a task is for, and which a worker serves. Needs common/keys.
-- Derived keys: records (field queue).

local function queue_of(id) return redis.call('HGET', task_key(id), 'queue') or 'default' end

-- Whether a comma-separated list of queues has this one.
local function has_queue(queues, queue) return string.find(',' .. queues .. ',', ',' .. queue .. ',', 1, true) ~= nil end

-- Whether a worker serves a queue. entry: of flansible:workers:slots; an older worker's names no queues.
local function serves(entry, queue) return has_queue(string.match(entry, '^%d+ %d+ (%S+) %d+$') or 'default', queue) end
