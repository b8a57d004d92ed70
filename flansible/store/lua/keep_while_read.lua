-- Keeps final tasks that somebody reads: prune.lua spares them, and an expiry that comes too soon is put off.
--
-- KEYS: 1 flansible:reading, then the records
-- ARGV: 1 seconds to keep them from now on, 2 seconds after which nothing puts off an expiry any more,
--       3 output bytes per segment, 4 colours per segment
-- Returns OK.
-- Derived keys: every key of these tasks.
-- include: keys
-- include: record_keys

local seconds, most, time = tonumber(ARGV[1]), tonumber(ARGV[2]), now_seconds()
for i = 2, #KEYS do
  local task = KEYS[i]
  local id, left = task_id(task), redis.call('TTL', task)
  if left >= 0 and redis.call('HEXISTS', task, 'hidden') == 0 then
    redis.call('ZADD', KEYS[1], time + seconds, id)
    if left < seconds then
      -- The time at which it was to expire before anything put that off.
      redis.call('HSETNX', task, 'expires', math.floor(time) + left)
      local latest = tonumber(redis.call('HGET', task, 'expires')) + most
      local at = math.floor(math.min(time + seconds, latest))
      if at > time + left then
        for _, key in ipairs(record_keys(id, ARGV[3], ARGV[4])) do redis.call('EXPIREAT', key, at) end
        redis.call('EXPIREAT', task, at)
      end
    end
  end
end
return redis.status_reply('OK')
