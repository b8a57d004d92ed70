-- Hosts of runs, and which task holds another one back by them. Needs common/queues.
-- docs/architecture/exclusive-hosts.md has the argument.
--
-- An exclusive run (field `exclusive`) has no host in common with another run. `places` are a run's inventories, each with
-- a zero byte behind it; '' is one that is not known yet, and a prefix of each. `host_set` names the set of its hosts;
-- without one, or where that has expired, the run counts as on all hosts of its inventories.
--
-- flansible:exclusive has the exclusive tasks that run, or wait for hosts. One that waits holds back those that came
-- after it, or they would overtake it for ever; not while no worker serves its queue. Nothing is held while waiting, and
-- a task waits for runs and for earlier tasks only: no two wait for each other.
--
-- Derived keys: flansible:exclusive, flansible:host_set:<digest>, flansible:tasks:state:running, records (fields
--   state, seq, kind, waits_for, exclusive, places, host_set, hosts_at); those of common/queues.

local HOSTS_SECONDS = 30  -- hosts that were found longer ago are found again before a claim

local function host_set_key(name) return PREFIX .. 'host_set:' .. name end

-- Returns where a task runs. is_fresh: its hosts were looked for just now, whether or not they were found.
local function reach_of(id)
  local kind, places, hosts, at = unpack(redis.call('HMGET', task_key(id), 'kind', 'places', 'host_set', 'hosts_at'), 1, 4)
  return {places = places or (kind == 'git' and '' or '\0'), hosts = hosts or '',
          is_fresh = math.abs(now_seconds() - number(at)) <= HOSTS_SECONDS}
end

-- Whether one of these inventories is, or has in it, one of the others.
local function share_inventory(places, others)
  for place in string.gmatch(places, '([^%z]*)%z') do
    for other in string.gmatch(others, '([^%z]*)%z') do
      if string.sub(place, 1, #other) == other or string.sub(other, 1, #place) == place then return true end
    end
  end
  return false
end

-- Returns a host that is in both sets, '' where one of them is not known, nil for none.
local function shared_host(hosts, others)
  for _, name in ipairs({hosts, others}) do
    if name == '' or redis.call('EXISTS', host_set_key(name)) == 0 then return '' end
  end
  return redis.call('SINTER', host_set_key(hosts), host_set_key(others))[1]
end

-- Whether a task holds back others by its hosts: a run does, and an exclusive task that waits for hosts.
local function holds_hosts(id)
  local state, waits_for, exclusive = unpack(redis.call('HMGET', task_key(id), 'state', 'waits_for', 'exclusive'), 1, 3)
  if state == 'running' then return true end
  if state ~= 'queued' or not exclusive or string.sub(waits_for or '', 1, 6) ~= 'hosts:' then return false end
  return (is_served(queue_of(id)))
end

-- Returns the task that holds this one back by its hosts, and such a host ('': it is not known which); nil for none;
-- or 'unknown': its hosts have to be found first.
local function find_host_holder(id, seq, is_exclusive)
  local others = redis.call('ZRANGE', PREFIX .. 'exclusive', 0, -1)
  if not is_exclusive and #others == 0 then return nil end  -- as of most tasks: nothing was looked at
  local reach = reach_of(id)
  if reach.places == '' then return nil end
  if is_exclusive then
    if not reach.is_fresh then return 'unknown' end
    for _, other in ipairs(redis.call('ZRANGE', PREFIX .. 'tasks:state:running', 0, -1)) do table.insert(others, other) end
  end
  for _, other in ipairs(others) do
    local state, other_seq = unpack(redis.call('HMGET', task_key(other), 'state', 'seq'), 1, 2)
    if not state then
      redis.call('ZREM', PREFIX .. 'exclusive', other)
    elseif other ~= id and (state == 'running' or number(other_seq) < tonumber(seq)) then
      local theirs = reach_of(other)
      if share_inventory(reach.places, theirs.places) and holds_hosts(other) then
        if not reach.is_fresh then return 'unknown' end
        local host = shared_host(reach.hosts, theirs.hosts)
        if host then return other, host end
      end
    end
  end
  return nil
end
