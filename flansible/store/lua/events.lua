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

local function take_seq(seq)
  local entry_id = string.format('%d', seq) .. '-0'
  local entry = redis.call('XRANGE', events, entry_id, entry_id)[1]
  return not entry or take(entry)
end

-- Reads what versions before the history database wrote: members `<length>:<host>\0<seq>` of a sorted set.
local function each_member(before)
  local prefix = #host .. ':' .. host .. '\0'
  local first, last = '(' .. prefix .. string.format('%012d', before), '[' .. prefix .. ':'
  for _, member in ipairs(redis.call('ZRANGEBYLEX', by_host, first, last, 'LIMIT', 0, most)) do
    if not take_seq(tonumber(string.sub(member, -12))) then return end
  end
end

if host ~= '' then
  local newest = redis.call('XREVRANGE', events, '+', '-', 'COUNT', 1)[1]
  if not newest then return found end
  if redis.call('TYPE', by_host).ok == 'zset' then
    each_member(after)
  else
    each_seq(by_host, host, after, tonumber(string.match(newest[1], '^%d+')), take_seq)
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
