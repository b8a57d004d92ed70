"""What the Lua scripts of the store share: they run inside Redis, and flansible.store has the table of their keys.

Every step that decides something is one script, so two processes can never both win. They take `ARGV` alone, no
`KEYS`: one Redis is assumed, not a cluster. Times that decide are Redis' own: the machines' clocks may differ.
"""

SEGMENT_BYTES = 4 * 1024 * 1024  # of output; a longer string would be copied whole as it grows
COLOURS_PER_SEGMENT = 65536
TOLD_SECONDS = 30  # a task that was told to try, and has not by then, is told again

COMMON = (
    """
local P = 'flansible:'
local function task_key(id) return P .. 'task:' .. id end
local function seconds()
  local time = redis.call('TIME')
  return tonumber(time[1]) + tonumber(time[2]) / 1000000
end
local function changed(id) redis.call('PUBLISH', P .. 'changed:' .. id, '') end

-- What lists show of a task is another now. A record of its own counts it, so that lists can be followed as tasks are.
local function listed(id)
  if redis.call('HEXISTS', task_key(id), 'hidden') == 1 then return end
  local count = redis.call('HINCRBY', task_key('all'), 'events', 1)
  redis.call('XADD', P .. 'listed', 'MAXLEN', '~', 10000, count .. '-0', 'id', id)
  changed('all')
end
local function each_index(user, state, act)
  for _, index in ipairs({'tasks:state:' .. state, 'tasks:user:' .. user .. ':' .. state}) do act(P .. index) end
end
local function running_of(user) return redis.call('ZCARD', P .. 'tasks:user:' .. user .. ':running') end
local function list(text) return text and text ~= '' and cjson.decode(text) or {} end

-- The task that has a lock, or nil: a holder that does not run any more has none.
local function holder_of(lock)
  local id = redis.call('HGET', P .. 'locks', lock)
  if id and redis.call('HGET', task_key(id), 'state') == 'running' then return id end
  return nil
end

local function remove_from_line(name, id)
  redis.call('ZREM', P .. 'waiting:' .. name, id)
  if redis.call('EXISTS', P .. 'waiting:' .. name) == 0 then redis.call('SREM', P .. 'waiting', name) end
end

-- A queued task stands in one line at most: for one that does, its message has come.
local function leave_line(id)
  redis.call('ZREM', P .. 'unsent', id)
  local name = redis.call('HGET', task_key(id), 'waits_for')
  if not name then return end
  redis.call('HDEL', task_key(id), 'waits_for', 'told')
  remove_from_line(name, id)
end

-- How many of a line may start now.
local function free_in(name)
  local lock = string.match(name, '^lock:(.*)$')
  if lock then return holder_of(lock) and 0 or 1 end
  local first = redis.call('ZRANGE', P .. 'waiting:' .. name, 0, 0)[1]
  local most = first and tonumber(redis.call('HGET', task_key(first), 'max_running') or 0) or 0
  return most == 0 and 1 or most - running_of(string.sub(name, 6))
end

-- The first of a line that may start and has not been told so: {id, summary}, or nil. It stays in the line until it
-- claims, so that nobody else is told in its place meanwhile.
local function next_waiter(name)
  local told_before, free, rank = seconds() - TOLD, free_in(name), 0
  while rank < free do
    local id = redis.call('ZRANGE', P .. 'waiting:' .. name, rank, rank)[1]
    if not id then return nil end
    local known = redis.call('HMGET', task_key(id), 'state', 'summary', 'told')
    if known[1] ~= 'queued' then
      remove_from_line(name, id)
    elseif not known[3] or tonumber(known[3]) < told_before then
      redis.call('HSET', task_key(id), 'told', seconds())
      return {id, known[2]}
    else
      rank = rank + 1
    end
  end
  return nil
end

-- After a run: its locks are free, its user has one run less. Who may try next, as {id, summary, id, summary, ...}.
local function release(id, user, locks)
  local woken = {}
  local function wake(name)
    local waiter = next_waiter(name)
    if waiter then
      table.insert(woken, waiter[1])
      table.insert(woken, waiter[2])
    end
  end
  for _, lock in ipairs(list(locks)) do
    if redis.call('HGET', P .. 'locks', lock) == id then
      redis.call('HDEL', P .. 'locks', lock)
      wake('lock:' .. lock)
    end
  end
  wake('user:' .. user)
  return woken
end

-- Adds an event that the record itself makes, such as the final one. Fields: a table.
local function add_event(id, fields)
  local task = task_key(id)
  local known = redis.call('HMGET', task, 'events_end', 'output_bytes')
  fields.output_start = tonumber(known[1] or 0)
  fields.output_end = tonumber(known[2])
  local seq = redis.call('HINCRBY', task, 'events', 1)
  redis.call('XADD', task .. ':events', seq .. '-0', 'event', cjson.encode(fields))
  redis.call('HSET', task, 'events_end', known[2])
end

-- What the entries of a host's events begin with; its length first, so that no name is the beginning of another.
local function by_host(host) return #host .. ':' .. host .. '\\0' end

-- Every key of a record, beside the record itself.
local function parts_of(id)
  local task = task_key(id)
  local known = redis.call('HMGET', task, 'output_bytes', 'colours')
  local keys = {task .. ':run', task .. ':secrets', task .. ':events', task .. ':hosts', task .. ':by_host'}
  for n = 0, math.floor((tonumber(known[1] or 0)) / SEGMENT) do table.insert(keys, task .. ':output:' .. n) end
  for n = 0, math.floor((tonumber(known[2] or 0)) / COLOURS) do table.insert(keys, task .. ':colours:' .. n) end
  return keys
end
""".replace("SEGMENT", str(SEGMENT_BYTES))
    .replace("COLOURS", str(COLOURS_PER_SEGMENT))
    .replace("TOLD", str(TOLD_SECONDS))
)
