-- Lists the live workers.
--
-- KEYS: 1 flansible:workers, 2 flansible:workers:slots
-- ARGV: none
-- Returns {name, slots, runs that it reported, ...}.
-- include: keys

local workers, slots = unpack(KEYS)
local found = {}
for _, name in ipairs(redis.call('ZRANGEBYSCORE', workers, now_seconds(), '+inf')) do
  local count, busy = string.match(redis.call('HGET', slots, name) or '', '^(%d+) (%d+)')
  for _, value in ipairs({name, count or 0, busy or 0}) do table.insert(found, value) end
end
return found
