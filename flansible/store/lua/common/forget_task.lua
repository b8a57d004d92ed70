-- Removes final tasks from the indexes, and their keys. Needs common/keys and common/record_keys.
-- Derived keys: flansible:expiring, flansible:stored_bytes, flansible:tasks, flansible:tasks:user:<user>, the indexes of
--   the final state and of the entries that see it, flansible:visibility, flansible:reading, every key of the task.

-- Returns the id, user, state and bytes of a member of flansible:expiring.
local function parse_member(member)
  local id, user, state, bytes = string.match(member, '^(%S+) (.+) (%l[%l_]*) (%d+)$')
  if id then return id, user, state, tonumber(bytes) end
  id, user, state = string.match(member, '^(%S+) (.+) (%l[%l_]*)$')  -- as version 0.1.0 wrote it
  return id, user, state, 0
end

-- Removes the task of a member of flansible:expiring; whether that names one. delete: its keys as well, which have not
-- expired yet.
local function forget_task(member, delete, segment_bytes, colours_per_segment)
  local id, user, state, bytes = parse_member(member)
  if redis.call('ZREM', PREFIX .. 'expiring', member) == 0 or not id then return false end
  local function leave(index) redis.call('ZREM', index, id) end
  leave(PREFIX .. 'tasks')
  leave(PREFIX .. 'tasks:user:' .. user)
  each_entry_index(id, '', leave)
  each_index(id, user, state, leave)
  redis.call('HDEL', PREFIX .. 'visibility', id)
  if delete then
    for _, key in ipairs(record_keys(id, segment_bytes, colours_per_segment)) do redis.call('UNLINK', key) end
    redis.call('UNLINK', task_key(id))
  end
  redis.call('DECRBY', PREFIX .. 'stored_bytes', bytes)
  redis.call('ZREM', PREFIX .. 'reading', id)
  return true
end
