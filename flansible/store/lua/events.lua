-- Reads one page of a task's events, of all hosts or of one.
--
-- KEYS: 1 the task's events, 2 its by_host
-- ARGV: 1 seq to begin after, 2 most events, 3 most bytes of JSON (one event is returned in any case), 4 host ('': all)
-- Returns {seq, JSON, ...}.
-- include: host_index

local events, by_host = unpack(KEYS)
local after, most, bytes, host = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local found = {}

-- Takes an entry into the page, unless it is too big; returns whether there is room for another one.
local function take(entry)
  local json = entry[2][2]
  if #found > 0 and bytes < #json then return false end
  bytes = bytes - #json
  after = tonumber(string.match(entry[1], '^%d+'))
  table.insert(found, after)
  table.insert(found, json)
  return #found < 2 * most
end

if host ~= '' then
  local first, last = '(' .. host_member(host, after), '[' .. host_prefix(host) .. ':'
  for _, member in ipairs(redis.call('ZRANGEBYLEX', by_host, first, last, 'LIMIT', 0, most)) do
    local entry_id = string.format('%d', tonumber(string.sub(member, -12))) .. '-0'
    local entry = redis.call('XRANGE', events, entry_id, entry_id)[1]
    if entry and not take(entry) then break end
  end
  return found
end
local page_size = math.min(32, most)
while true do
  local page = redis.call('XRANGE', events, (after + 1) .. '-0', '+', 'COUNT', page_size)
  for _, entry in ipairs(page) do
    if not take(entry) then return found end
  end
  if #page < page_size then return found end
end
