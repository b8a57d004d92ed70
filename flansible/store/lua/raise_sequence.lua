-- Has the next task get a number above this one. This run of Redis needs no other such number then (submit.lua).
--
-- KEYS: 1 flansible:sequence, 2 flansible:store
-- ARGV: 1 the number
-- Returns OK.

local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
redis.call('HSET', KEYS[2], 'numbered', run_id)
if tonumber(redis.call('GET', KEYS[1]) or -1) < tonumber(ARGV[1]) then redis.call('SET', KEYS[1], ARGV[1]) end
return redis.status_reply('OK')
