-- Replaces what each user may do by the present rbac.json. Of several processes that publish the same, one makes the
-- change.
--
-- KEYS: 1 flansible:rights
-- ARGV: user, rights as JSON, ...
-- Returns {user, rights as they were, ...} of the users whose rights were others, or who are gone.

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
