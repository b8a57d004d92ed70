-- Requests that a running task's worker ends it. The first user who requests it is kept.
--
-- KEYS: 1 the record
-- ARGV: 1 the user
-- Returns {the task's state, whether this is the first such request as 1 or 0}, or nil when the task is unknown.

local state = redis.call('HGET', KEYS[1], 'state')
if not state then return nil end
return {state, state == 'running' and redis.call('HSETNX', KEYS[1], 'cancel_by', ARGV[1]) or 0}
