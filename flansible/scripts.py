"""The Lua scripts of the store: every step that decides something is one of them, so two processes can never both win.

Run inside Redis, registered by flansible.store, which has the table of the keys they touch. What each takes stands
above it; `ARGV` alone, no `KEYS`: one Redis is assumed, not a cluster.
"""

SUBMIT = """
local id, user, run, now = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local p = 'flansible:'
local task = p .. 'task:' .. id
if redis.call('EXISTS', task) == 1 then return 0 end
local seq = redis.call('INCR', p .. 'sequence')
redis.call('HSET', task, 'seq', seq, 'user', user, 'kind', ARGV[5], 'summary', ARGV[6], 'state', 'queued',
           'description', ARGV[7], 'submitted_at', now, 'output_bytes', 0, 'events', 0)
redis.call('SET', task .. ':run', run)
if #ARGV[8] > 0 then redis.call('SET', task .. ':secrets', ARGV[8]) end
for _, index in ipairs({'tasks', 'tasks:user:' .. user, 'tasks:state:queued', 'tasks:user:' .. user .. ':queued'}) do
  redis.call('ZADD', p .. index, seq, id)
end
return seq
"""

# ARGV: id, new state, legal old states (comma-separated), expiry (unix seconds, '' when not final), seconds of the
# lease that begins, or 'lapsed' when only a task whose lease has lapsed may be moved, or '', field, value, ...
# Leases are by Redis' own clock: workers' clocks may differ.
MOVE = """
local id, to, p = ARGV[1], ARGV[2], 'flansible:'
local time = tonumber(redis.call('TIME')[1])
if ARGV[5] == 'lapsed' then
  local lease = redis.call('ZSCORE', p .. 'leases', id)
  if not lease or tonumber(lease) > time then return 'alive' end
end
local task = p .. 'task:' .. id
local now = redis.call('HMGET', task, 'state', 'user', 'seq')
local from, user, seq = now[1], now[2], now[3]
if not from then return 'missing' end
if not string.find(',' .. ARGV[3] .. ',', ',' .. from .. ',', 1, true) then return from end
redis.call('HSET', task, 'state', to)
for i = 6, #ARGV, 2 do redis.call('HSET', task, ARGV[i], ARGV[i + 1]) end
if to == 'running' then
  redis.call('ZADD', p .. 'leases', time + ARGV[5], id)
else
  redis.call('ZREM', p .. 'leases', id)
end
redis.call('ZREM', p .. 'tasks:state:' .. from, id)
redis.call('ZREM', p .. 'tasks:user:' .. user .. ':' .. from, id)
redis.call('ZADD', p .. 'tasks:state:' .. to, seq, id)
redis.call('ZADD', p .. 'tasks:user:' .. user .. ':' .. to, seq, id)
if ARGV[4] ~= '' then
  redis.call('DEL', task .. ':secrets')
  for _, part in ipairs({'', ':run', ':output', ':colours', ':events'}) do
    redis.call('EXPIREAT', task .. part, ARGV[4])
  end
  redis.call('HSET', task, 'expires', ARGV[4])
  redis.call('ZADD', p .. 'expiring', ARGV[4], id .. ' ' .. user .. ' ' .. to)
end
return 'moved'
"""

# ARGV: id, offset, bytes, colour offset, colours, first seq, event, event, ...
# What was stored before is skipped: a retry stores nothing twice.
APPEND = """
local task = 'flansible:task:' .. ARGV[1]
local known = redis.call('HMGET', task, 'output_bytes', 'events', 'state')
if not known[1] then return false end
if known[3] ~= 'running' then return known[3] end
local stored, count = tonumber(known[1]), tonumber(known[2])
local offset, data = tonumber(ARGV[2]), ARGV[3]
if #data > 0 and offset + #data > stored then
  redis.call('SETRANGE', task .. ':output', offset, data)
  redis.call('HSET', task, 'output_bytes', offset + #data)
end
if #ARGV[5] > 0 then redis.call('SETRANGE', task .. ':colours', tonumber(ARGV[4]), ARGV[5]) end
local seq = tonumber(ARGV[6])
for i = 7, #ARGV do
  if seq > count then
    redis.call('XADD', task .. ':events', seq .. '-0', 'event', ARGV[i])
    count = seq
  end
  seq = seq + 1
end
redis.call('HSET', task, 'events', count)
return known[3]
"""

# ARGV: id, first and last output offset. The records between them, found by bisection: they stand in order.
COLOURS = """
local key, size = 'flansible:task:' .. ARGV[1] .. ':colours', 16
local count = redis.call('STRLEN', key) / size
local function offset_of(index)
  return struct.unpack('>I8', redis.call('GETRANGE', key, index * size, index * size + 7))
end
local function first_from(wanted)
  local low, high = 0, count
  while low < high do
    local middle = math.floor((low + high) / 2)
    if offset_of(middle) < wanted then low = middle + 1 else high = middle end
  end
  return low
end
local first, after = first_from(tonumber(ARGV[2])), first_from(tonumber(ARGV[3]) + 1)
if first == after then return '' end
return redis.call('GETRANGE', key, first * size, after * size - 1)
"""

# ARGV: seconds, id, id, ... What is no longer running has no lease and gets none.
RENEW = """
local until_ = tonumber(redis.call('TIME')[1]) + ARGV[1]
for i = 2, #ARGV do redis.call('ZADD', 'flansible:leases', 'XX', until_, ARGV[i]) end
"""

LAPSED = """
return redis.call('ZRANGEBYSCORE', 'flansible:leases', '-inf', redis.call('TIME')[1], 'LIMIT', 0, 100)
"""

DISCARD = """
local id, p = ARGV[1], 'flansible:'
local task = p .. 'task:' .. id
local known = redis.call('HMGET', task, 'state', 'user')
if known[1] ~= 'queued' then return 0 end
redis.call('DEL', task, task .. ':run', task .. ':secrets')
for _, index in ipairs({'tasks', 'tasks:user:' .. known[2], 'tasks:state:queued',
                        'tasks:user:' .. known[2] .. ':queued'}) do
  redis.call('ZREM', p .. index, id)
end
return 1
"""

PRUNE = """
local p = 'flansible:'
local due = redis.call('ZRANGEBYSCORE', p .. 'expiring', '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
for _, member in ipairs(due) do
  local id, user, state = string.match(member, '^(%S+) (.+) (%S+)$')
  for _, index in ipairs({'tasks', 'tasks:user:' .. user, 'tasks:state:' .. state,
                          'tasks:user:' .. user .. ':' .. state}) do
    redis.call('ZREM', p .. index, id)
  end
  redis.call('ZREM', p .. 'expiring', member)
end
return #due
"""

# ARGV: id, user. Asks the worker that runs the task to end it; who asked first is kept.
ASK_TO_CANCEL = """
local task = 'flansible:task:' .. ARGV[1]
local state = redis.call('HGET', task, 'state')
if state == 'running' then redis.call('HSETNX', task, 'cancel_by', ARGV[2]) end
return state
"""
