-- Says in a running task's description that nothing was heard of its worker; renew_leases.lua takes that back.
--
-- KEYS: 1 the record
-- ARGV: 1 token, 2 the description
-- Returns 1, or 0 when the task is not running under this token, or it is said already.
-- Derived keys: those of common/changes.
-- include: keys
-- include: changes

local state, token, silent = unpack(redis.call('HMGET', KEYS[1], 'state', 'token', 'silent'))
if state ~= 'running' or (token or '0') ~= ARGV[1] or silent then return 0 end
redis.call('HSET', KEYS[1], 'silent', 1, 'description', ARGV[2])
publish_change(task_id(KEYS[1]))
list_entry_changed(task_id(KEYS[1]))
return 1
