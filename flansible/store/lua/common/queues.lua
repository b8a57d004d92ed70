-- Queues: which of them a task is for, and which a worker serves. Needs common/keys.
-- Derived keys: flansible:workers, flansible:workers:slots, records (field queue).

local function queue_of(id) return redis.call('HGET', task_key(id), 'queue') or 'default' end

-- Whether a comma-separated list of queues has this one.
local function has_queue(queues, queue) return string.find(',' .. queues .. ',', ',' .. queue .. ',', 1, true) ~= nil end

-- Whether a worker's entry says that it serves a queue. entry: of flansible:workers:slots; an older worker's names no queues.
local function serves(entry, queue) return has_queue(string.match(entry, '^%d+ %d+ (%S+) %d+$') or 'default', queue) end

-- Returns whether a live worker serves a queue, and whether any worker is alive.
local function is_served(queue)
  local names = redis.call('ZRANGEBYSCORE', PREFIX .. 'workers', now_seconds(), '+inf')
  for _, name in ipairs(names) do
    if serves(redis.call('HGET', PREFIX .. 'workers:slots', name) or '', queue) then return true, true end
  end
  return false, #names > 0
end
