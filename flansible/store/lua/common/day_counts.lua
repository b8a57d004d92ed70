-- Statistics by day. Needs common/keys.
-- Derived keys: flansible:stats:<day>, flansible:stats:<day>:<user>, the record (field about), its hosts.

-- Adds a final task to the counts of this day, all users' and its user's: by state, by playbook, and by host that
-- failed in it. took: the seconds it ran, or nil. A day with 20,000 fields takes no new names.
local function count_final(id, user, state, took)
  local day = math.floor(now_seconds() / 86400)
  local about = decode(redis.call('HGET', task_key(id), 'about'))
  for _, key in ipairs({PREFIX .. 'stats:' .. day, PREFIX .. 'stats:' .. day .. ':' .. user}) do
    local function add(name, number) redis.call('HINCRBYFLOAT', key, name, number) end
    add('state:' .. state, 1)
    local has_room = redis.call('HLEN', key) < 20000
    if has_room and took and about.playbook and (state == 'succeeded' or state == 'failed') then
      local name = about.playbook
      add('runs:' .. name, 1)
      add('seconds:' .. name, took)
      if state == 'failed' then add('failed:' .. name, 1) end
      if took > tonumber(redis.call('HGET', key, 'longest:' .. name) or 0) then
        redis.call('HSET', key, 'longest:' .. name, took)
      end
    end
    for _, host in ipairs(has_room and redis.call('ZRANGEBYSCORE', task_key(id) .. ':hosts', 0, 0) or {}) do
      add('host:' .. host, 1)
    end
    redis.call('EXPIRE', key, 100 * 86400)
  end
end
