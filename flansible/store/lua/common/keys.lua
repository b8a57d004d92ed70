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

-- Reads a number of a record; one that is missing or damaged is 0.
local function number(text) return tonumber(text or 0) or 0 end

-- Decodes a JSON field; one that is missing, empty or damaged is an empty table.
local function decode(text)
  local is_valid, found = pcall(cjson.decode, text or '')
  return is_valid and type(found) == 'table' and found or {}
end
