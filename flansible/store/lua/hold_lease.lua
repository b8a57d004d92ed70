-- Takes or renews a lease that one process holds at a time.
--
-- KEYS: 1 the lease
-- ARGV: 1 who asks: a token that no other process has, 2 milliseconds until it is over
-- Returns 1 if the asker holds it now, 0 if another one does.
-- Derived keys: none.

local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
