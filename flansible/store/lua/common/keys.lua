-- Key names, the clock and JSON. flansible/store/__init__.py has the table of all keys.

local PREFIX = 'flansible:'

local function task_key(id) return PREFIX .. 'task:' .. id end

-- Returns the id of the task whose record has this key.
local function task_id(key) return string.sub(key, #PREFIX + #'task:' + 1) end

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

-- Returns the entries of rbac.json that see a task. Those of a final one are kept beside its record, which may expire
-- before it is taken out of the indexes.
local function seeing_entries(id)
  local kept = redis.call('HGET', task_key(id), 'visibility') or redis.call('HGET', PREFIX .. 'visibility', id)
  local entries = decode(kept or '').entries
  return type(entries) == 'table' and entries or {}
end

-- Calls act(key) for the indexes of the entries that see a task: those for a state, or with '' those for all.
local function each_entry_index(id, state, act)
  for _, entry in ipairs(seeing_entries(id)) do
    act(PREFIX .. 'tasks:entry:' .. tostring(entry) .. (state == '' and '' or ':' .. state))
  end
end

-- Calls act(key) for the indexes that list a task in a state: all users', its user's, and those of the entries that see
-- it.
local function each_index(id, user, state, act)
  act(PREFIX .. 'tasks:state:' .. state)
  act(PREFIX .. 'tasks:user:' .. user .. ':' .. state)
  each_entry_index(id, state, act)
end
