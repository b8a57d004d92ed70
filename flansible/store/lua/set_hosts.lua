-- Records on which hosts a queued task will run, as they were found just now.
--
-- KEYS: 1 the record, 2 the set of these hosts
-- ARGV: 1 name of that set ('': they could not be found), 2 seconds to keep it, 3 whether its inventories are given:
--       1 or '', 4 these, as common/hosts has them, then each host
-- Returns 1, or 0 when the task is not queued.
-- include: keys

local task, hosts = unpack(KEYS)
if redis.call('HGET', task, 'state') ~= 'queued' then return 0 end
redis.call('HSET', task, 'host_set', ARGV[1], 'hosts_at', now_seconds())
if ARGV[3] ~= '' then redis.call('HSET', task, 'places', ARGV[4]) end
for i = 5, #ARGV, 1000 do redis.call('SADD', hosts, unpack(ARGV, i, math.min(i + 999, #ARGV))) end
if #ARGV > 4 then redis.call('EXPIRE', hosts, ARGV[2]) end
return 1
