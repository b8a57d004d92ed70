-- Replaces what each user may do by each entry of the present rbac.json. Of several processes that publish the same, one makes the
-- change.
--
-- KEYS: 1 flansible:rights
-- ARGV: principal (user and entry), rights as JSON, ...
-- Returns {principal, rights as they were, ...} of those whose rights were others, or are gone.

local rights = KEYS[1]
local before = redis.call('HGETALL', rights)
redis.call('DEL', rights)
for i = 1, #ARGV, 2 do redis.call('HSET', rights, ARGV[i], ARGV[i + 1]) end
local answer = {}
for i = 1, #before, 2 do
  if redis.call('HGET', rights, before[i]) ~= before[i + 1] then
    table.insert(answer, before[i])
    table.insert(answer, before[i + 1])
  end
end
return answer
