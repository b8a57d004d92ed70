-- Counts a failed login. A counter expires at the end of the window that its first failure began.
--
-- KEYS: 1 the counter of this user and address, 2 of the user, 3 of the address
-- ARGV: 1, 2, 3 their limits (0: no limit), 4 seconds of the window
-- Returns 1 when this failure reaches a limit, otherwise 0.

local reached = 0
for i, key in ipairs(KEYS) do
  local count = redis.call('INCR', key)
  if count == 1 then redis.call('EXPIRE', key, ARGV[4]) end
  if count == tonumber(ARGV[i]) then reached = 1 end
end
return reached
