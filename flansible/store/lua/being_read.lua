-- Lists the tasks that somebody reads.
--
-- KEYS: 1 flansible:reading
-- ARGV: none
-- Returns their ids.
-- include: keys

return redis.call('ZRANGEBYSCORE', KEYS[1], now_seconds(), '+inf')
