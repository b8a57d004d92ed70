-- Notifies followers of changes. Needs common/keys.
-- Derived keys: the record (field hidden); flansible:task:all, flansible:listed.

local function publish_change(id) redis.call('PUBLISH', PREFIX .. 'changed:' .. id, '') end

-- Records that the task's list entry changed. A record with the id `all` counts these changes, so that lists can be
-- followed as tasks are. Hidden tasks are in no list.
local function list_entry_changed(id)
  if redis.call('HEXISTS', task_key(id), 'hidden') == 1 then return end
  local number = redis.call('HINCRBY', task_key('all'), 'events', 1)
  redis.call('XADD', PREFIX .. 'listed', 'MAXLEN', '~', 10000, number .. '-0', 'id', id)
  publish_change('all')
end
