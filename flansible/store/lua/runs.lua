-- Lists runs, at most 1,000: all of them, or those whose lease has lapsed.
--
-- KEYS: 1 flansible:leases
-- ARGV: 1 `all` or `lapsed`
-- Returns {id, claim, process, worker, id, ...}.
-- Derived keys: the records.
-- include: keys

local highest = ARGV[1] == 'lapsed' and now_seconds() or '+inf'
local found = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', highest, 'LIMIT', 0, 1000)) do
  local record = redis.call('HMGET', task_key(id), 'claim', 'process', 'worker')
  for _, value in ipairs({id, record[1] or '', record[2] or '', record[3] or ''}) do table.insert(found, value) end
end
return found
