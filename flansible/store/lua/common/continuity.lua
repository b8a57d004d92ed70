-- Whether this Redis is the one it was a moment ago; tokens of claims. Needs common/keys.
-- docs/architecture/fencing.md has the argument.
-- Derived keys: flansible:store, flansible:token, flansible:awaited, flansible:leases, flansible:workers,
--   flansible:workers:slots, records (field lease).

local AWAY_SECONDS = 3  -- nobody has written for so long: Redis was frozen, or refused writes, or its clock was set
local REPORTED_SECONDS = 12  -- a worker that has reported within these is alive

-- Gives every lease its full length again, after a time in which no worker could renew any. With another run_id Redis
-- may also have lost its last second, and with it claims: `awaited` are the workers that may have made one.
local function check_continuity()
  local time = now_seconds()
  local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
  local before = redis.call('HMGET', PREFIX .. 'store', 'run_id', 'at')
  redis.call('HSET', PREFIX .. 'store', 'run_id', run_id, 'at', time)
  if before[1] == run_id and math.abs(time - tonumber(before[2])) <= AWAY_SECONDS then return end
  for _, id in ipairs(redis.call('ZRANGE', PREFIX .. 'leases', 0, -1)) do
    redis.call('ZADD', PREFIX .. 'leases', time + (redis.call('HGET', task_key(id), 'lease') or 60), id)
  end
  if before[1] == run_id then return end
  -- Those that were alive when the latest of them was.
  local _, latest = unpack(redis.call('ZREVRANGE', PREFIX .. 'workers', 0, 0, 'WITHSCORES'))
  if not latest then return end
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', PREFIX .. 'workers', latest - REPORTED_SECONDS, '+inf')) do
    local lease = string.match(redis.call('HGET', PREFIX .. 'workers:slots', name) or '', '(%d+)$')
    redis.call('ZADD', PREFIX .. 'awaited', time + (lease or 60), name)
  end
  redis.call('EXPIRE', PREFIX .. 'awaited', 3600)
end

-- Whether a worker may still have a claim that this Redis has lost.
local function awaits_reports()
  redis.call('ZREMRANGEBYSCORE', PREFIX .. 'awaited', '-inf', now_seconds())
  return redis.call('EXISTS', PREFIX .. 'awaited') == 1
end

-- Returns a number above all earlier ones, those included that a Redis put back to its last second has forgotten.
local function next_token()
  local time = redis.call('TIME')
  local previous = tonumber(redis.call('GET', PREFIX .. 'token') or 0)
  local token = string.format('%.0f', math.max(previous + 1, time[1] * 1000000 + time[2]))
  redis.call('SET', PREFIX .. 'token', token)
  return token
end
