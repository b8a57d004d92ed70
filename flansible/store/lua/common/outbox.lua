-- What notifications are made of: entries of a stream, which web processes move to the history database. Needs
-- common/keys and common/metrics.
-- Derived keys: flansible:outbox, flansible:notified, flansible:outcomes, records (fields about, callback).

local OUTBOX_ENTRIES = 10000
local MOST_OUTCOMES = 10000

-- Adds what has happened to a task, if a notification asks for such a thing, or the task has a callback. event:
-- `started` or `final`; state: its final one; previous: that of the run before it, ''. Of a full stream the oldest
-- entry goes, and is counted.
local function add_to_outbox(id, event, state, previous)
  local wanted = redis.call('HMGET', PREFIX .. 'notified', '*', event)
  local callback = redis.call('HEXISTS', task_key(id), 'callback')
  if not (wanted[1] or wanted[2]) and callback == 0 then return end
  if redis.call('XLEN', PREFIX .. 'outbox') >= OUTBOX_ENTRIES then count_metric('outbox:lost', 1) end
  redis.call('XADD', PREFIX .. 'outbox', 'MAXLEN', OUTBOX_ENTRIES, '*', 'task', id, 'event', event, 'state', state,
             'previous', previous, 'callback', callback, 'at', string.format('%.0f', now_seconds() * 1000))
end

-- Keeps how this run ended, and returns how the one before it did, '' for none: of its template, else of its playbook,
-- inventory and limit. What was canceled says nothing. A full table begins anew.
local function exchange_outcome(id, state)
  local about, key = decode(redis.call('HGET', task_key(id), 'about')), PREFIX .. 'outcomes'
  local whole
  if type(about.template) == 'string' then
    whole = 'template\0' .. about.template
  elseif type(about.playbook) == 'string' then
    whole = table.concat({'playbook', about.playbook, tostring(about.inventory or ''), tostring(about.hosts or '')}, '\0')
  end
  if not whole or state == 'canceled' then return '' end
  local field = redis.sha1hex(whole)
  local previous = redis.call('HGET', key, field) or ''
  if previous == '' and redis.call('HLEN', key) >= MOST_OUTCOMES then redis.call('DEL', key) end
  redis.call('HSET', key, field, state)
  return previous
end
