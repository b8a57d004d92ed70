-- Deletes a final task that was copied to the history database, if it is still as it was copied.
--
-- KEYS: 1 the record, 2 flansible:archiver
-- ARGV: 1 token of the archiver, 2 the task's member of flansible:expiring, 3 output bytes per segment, 4 colours per
--       segment, 5 bytes of its output that were copied, 6 number of its events
-- Returns 1 when nothing is left of it; 0 when another archiver was elected, or the time of this one is over, or the
--   task is not final, or has more than was copied.
-- Derived keys: those of common/forget_task.
-- include: keys
-- include: record_keys
-- include: forget_task

local task, archiver = unpack(KEYS)
local token, ends = unpack(redis.call('HMGET', archiver, 'token', 'until'))
if token ~= ARGV[1] or number(ends) < now_seconds() then return 0 end
local state, output, events = unpack(redis.call('HMGET', task, 'state', 'output_bytes', 'events'))
local _, _, final_state = parse_member(ARGV[2])
if state and (state ~= final_state or number(output) ~= tonumber(ARGV[5]) or number(events) ~= tonumber(ARGV[6])) then
  return 0
end
forget_task(ARGV[2], true, ARGV[3], ARGV[4])
return 1
