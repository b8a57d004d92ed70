"""Lua scripts that look for tasks and change nothing. What each takes, and gives, stands above it."""

from flansible.store.lua import COMMON

# Of a record, what a task's status is made of.
STATUS_FIELDS = (
    "state",
    "description",
    "returncode",
    "user",
    "kind",
    "summary",
    "submitted_at",
    "started_at",
    "finished_at",
    "attempt",
    "ended",
    "about",
    "counts",
)

# ARGV: id. Gives the values of STATUS_FIELDS and, for a queued task, what it waits for: position, why ('' nothing but
# a worker), slots of live workers, runs, mean seconds of a run, now, start of the run that has its lock, how many are
# before it in its line, how many of its user may run.
# Asked more often than all else: for a task that is not queued it ends before the functions of COMMON are even made.
STATUS = (
    """
local values = redis.call('HMGET', 'flansible:task:' .. ARGV[1], FIELDS)
if values[1] ~= 'queued' then return {values} end
""".replace("FIELDS", ", ".join(f"'{name}'" for name in STATUS_FIELDS))
    + COMMON
    + """
local known = redis.call('HMGET', task_key(ARGV[1]), 'waits_for', 'told', 'max_running')
local why, holder, slots = '', nil, 0
local line = not known[2] and known[1] or ''
local lock = string.match(line, '^lock:(.*)$')
if lock then
  -- Not who had it when this one joined the line.
  holder = holder_of(lock)
  why = holder and 'locked_by: ' .. holder or ''
elseif line ~= '' then
  why = 'user_limit'
end
for _, name in ipairs(redis.call('ZRANGEBYSCORE', P .. 'workers', seconds(), '+inf')) do
  slots = slots + tonumber(redis.call('HGET', P .. 'workers:slots', name) or 0)
end
local since = holder and redis.call('HGET', task_key(holder), 'started')
local rank = redis.call('ZRANK', P .. 'tasks:state:queued', ARGV[1])
return {values, {(rank or 0) + 1, why, slots, redis.call('ZCARD', P .. 'tasks:state:running'),
                 redis.call('HGET', P .. 'durations', 'mean') or '', tostring(seconds()), since or '',
                 redis.call('ZRANK', P .. 'waiting:' .. line, ARGV[1]) or 0, known[3] or 0}}
"""
)

# ARGV: index, highest score, tasks wanted, entries to look at, kind ('' any), text in lower case ('' any), playbook (''
# any), host ('' any).
# Gives {score of the last entry looked at ('' at the end), id, ...}, newest first.
SEARCH = (
    COMMON
    + """
local wanted, budget, kind, text = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5], ARGV[6]
local playbook, host = ARGV[7], ARGV[8]
local function fits(id)
  local known = redis.call('HMGET', task_key(id), 'kind', 'summary', 'about')
  return known[1] and (kind == '' or known[1] == kind)
         and (text == '' or string.find(string.lower(known[2]), text, 1, true))
         and (playbook == '' or list(known[3]).playbook == playbook)
         and (host == '' or redis.call('ZSCORE', task_key(id) .. ':hosts', host))
end
local found, last, highest = {}, '', ARGV[2]
while budget > 0 and #found < wanted do
  local page = redis.call('ZREVRANGEBYSCORE', P .. ARGV[1], highest, '-inf', 'WITHSCORES',
                          'LIMIT', 0, math.min(budget, 200))
  if #page == 0 then return {'', unpack(found)} end
  for i = 1, #page, 2 do
    last = page[i + 1]
    budget = budget - 1
    if fits(page[i]) then
      table.insert(found, page[i])
      if #found == wanted then break end
    end
  end
  highest = '(' .. last
end
return {last, unpack(found)}
"""
)

# ARGV: how many, score to begin after. The tasks that have waited longest for a worker alone, of the next thousand:
# {score of the last one looked at ('' at the end), id, ...}.
OLDEST_QUEUED = (
    COMMON
    + """
local found, last = {}, ''
local page = redis.call('ZRANGEBYSCORE', P .. 'tasks:state:queued', '(' .. ARGV[2], '+inf', 'WITHSCORES',
                        'LIMIT', 0, 1000)
for i = 1, #page, 2 do
  if #found == tonumber(ARGV[1]) then return {last, unpack(found)} end
  local known = redis.call('HMGET', task_key(page[i]), 'waits_for', 'told')
  local waits = known[1] and not known[2]
  if not waits and not redis.call('ZSCORE', P .. 'unsent', page[i]) then table.insert(found, page[i]) end
  last = page[i + 1]
end
return {#page == 2000 and last or '', unpack(found)}
"""
)

# ARGV: how many, seconds. Queued tasks, in no line, though one that was submitted after them was started so long ago:
# their messages must have been lost. {id, ...}.
OVERTAKEN = (
    COMMON
    + """
local found = {}
local newest = redis.call('ZREVRANGE', P .. 'tasks:state:running', 0, 0, 'WITHSCORES')
if not newest[1] then return found end
local started = tonumber(redis.call('HGET', task_key(newest[1]), 'started') or '')
if not started or seconds() - started < tonumber(ARGV[2]) then return found end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. 'tasks:state:queued', '-inf', newest[2], 'LIMIT', 0, 1000)) do
  if #found == tonumber(ARGV[1]) then break end
  if redis.call('HEXISTS', task_key(id), 'waits_for') == 0 and not redis.call('ZSCORE', P .. 'unsent', id) then
    table.insert(found, id)
  end
end
return found
"""
)

# ARGV: how many. The oldest tasks that are not known to have been put on the queue: {id, ...}.
UNSENT = (
    COMMON
    + """
return redis.call('ZRANGE', P .. 'unsent', 0, ARGV[1] - 1)
"""
)
