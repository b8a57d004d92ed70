-- Requests that a running task's worker ends it. The first user who requests it is kept.
--
-- KEYS: 1 the record
-- ARGV: 1 the user
-- Returns the task's state, or nil when it is unknown.

local state = redis.call('HGET', KEYS[1], 'state')
if state == 'running' then redis.call('HSETNX', KEYS[1], 'cancel_by', ARGV[1]) end
return state
