-- Checks the counters of failed logins against their limits.
--
-- KEYS: 1 the counter of this user and address, 2 of the user, 3 of the address
-- ARGV: 1, 2, 3 their limits (0: no limit)
-- Returns the seconds until no limit blocks this login any more; 0 when none does now.

local longest = 0
for i, key in ipairs(KEYS) do
  local limit = tonumber(ARGV[i])
  if limit > 0 and tonumber(redis.call('GET', key) or 0) >= limit then
    longest = math.max(longest, redis.call('TTL', key), 1)
  end
end
return longest
