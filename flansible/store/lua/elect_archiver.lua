-- Makes a process the archiver for some seconds, unless another one is. Of several that ask, one is.
--
-- KEYS: 1 flansible:archiver
-- ARGV: 1 the process, 2 seconds
-- Returns its token, or '' when another process is the archiver. A process that is elected again after its time was
--   over, or by a Redis that was restarted, has a new token.
-- Derived keys: those of common/continuity.
-- include: keys
-- include: continuity

local holder, token, ends, before = unpack(redis.call('HMGET', KEYS[1], 'holder', 'token', 'until', 'run_id'))
local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
local is_over = number(ends) < now_seconds()
if not is_over and holder ~= ARGV[1] then return '' end
if is_over or before ~= run_id then
  token = next_token()
  redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'token', token, 'run_id', run_id)
end
redis.call('HSET', KEYS[1], 'until', now_seconds() + ARGV[2])
return token
