-- Notes whether the archiver can archive.
--
-- KEYS: 1 flansible:archiver
-- ARGV: 1 its token, 2 the problem, '' for none
-- Returns 1, or 0 when another archiver was elected after it.
-- include: keys

if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'problem', ARGV[2], 'reported', now_seconds())
return 1
