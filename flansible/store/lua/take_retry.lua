-- Takes the task whose retry has been due longest, and puts it off: whoever took it and died has not lost it.
--
-- KEYS: 1 flansible:retries
-- ARGV: 1 seconds until it is due again
-- Returns its id, nil if none is due.
-- Derived keys: none.
-- include: keys

local time = now_seconds()
local id = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', time, 'LIMIT', 0, 1)[1]
if id then redis.call('ZADD', KEYS[1], time + tonumber(ARGV[1]), id) end
return id
