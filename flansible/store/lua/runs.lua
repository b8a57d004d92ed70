-- Lists running tasks, at most 1,000: those whose lease ends first.
--
-- KEYS: 1 flansible:leases
-- ARGV: none
-- Returns {id, token, process, worker, seconds of the lease that are left, seconds since its last renewal, '1' if that
--   is in its description, ...}.
-- Derived keys: the records; those of common/continuity.
-- include: keys
-- include: continuity

check_continuity()
local time, found = now_seconds(), {}
local page = redis.call('ZRANGE', KEYS[1], 0, 999, 'WITHSCORES')
for i = 1, #page, 2 do
  local record = redis.call('HMGET', task_key(page[i]), 'token', 'process', 'worker', 'lease', 'silent')
  local left = page[i + 1] - time
  for _, value in ipairs({page[i], record[1] or '0', record[2] or '', record[3] or '', tostring(left),
                          tostring((record[4] or 60) - left), record[5] or ''}) do
    table.insert(found, value)
  end
end
return found
