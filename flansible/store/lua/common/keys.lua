-- Key names, the clock and JSON. flansible/store/__init__.py has the table of all keys.

local PREFIX = 'flansible:'

local function task_key(id) return PREFIX .. 'task:' .. id end

-- Returns the id of the task whose record has this key.
local function task_id(key) return string.sub(key, #PREFIX + #'task:' + 1) end

-- Calls act(key) for the two indexes that list tasks in a state: all users' and this user's.
local function each_index(user, state, act)
  act(PREFIX .. 'tasks:state:' .. state)
  act(PREFIX .. 'tasks:user:' .. user .. ':' .. state)
end

-- Seconds since 1970. Redis' own clock decides, because the machines' clocks may differ.
local function now_seconds()
  local time = redis.call('TIME')
  return tonumber(time[1]) + tonumber(time[2]) / 1000000
end

-- Decodes a JSON field; a missing or empty one is an empty table.
local function decode(text) return text and text ~= '' and cjson.decode(text) or {} end
