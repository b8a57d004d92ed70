-- Has the next task get a number above this one.
--
-- KEYS: 1 flansible:sequence
-- ARGV: 1 the number
-- Returns OK.

if tonumber(redis.call('GET', KEYS[1]) or -1) < tonumber(ARGV[1]) then redis.call('SET', KEYS[1], ARGV[1]) end
return redis.status_reply('OK')
