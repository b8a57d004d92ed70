-- Notes that somebody reads archived tasks, which the retention of the history database then spares.
--
-- KEYS: 1 flansible:reading
-- ARGV: 1 seconds from now on, then ids of the tasks
-- Returns OK.
-- include: keys

local ends = now_seconds() + ARGV[1]
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], ends, ARGV[i]) end
return redis.status_reply('OK')
