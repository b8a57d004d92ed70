-- Writes, as every step that records something does: a Redis that is full or read-only answers a PING.
--
-- KEYS: 1 flansible:checked
-- ARGV: 1 seconds to keep it
-- Returns OK.

return redis.call('SET', KEYS[1], '', 'EX', ARGV[1])
