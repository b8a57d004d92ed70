"""Lua scripts that write and read what runs leave. What each takes, and gives, stands above it."""

from flansible.store.lua import COLOURS_PER_SEGMENT, COMMON, SEGMENT_BYTES

# ARGV: id, claim, offset, bytes, first colour, colours, end of the last event's output, first seq,
# then for each event: JSON, host ('' none), its rank among hosts (0: failed, 1), 'stats' or a result's verdict or ''.
# What was stored before is skipped: a retry stores nothing twice. Gives {state or what stood against it, and what is
# stored: output bytes, colours, events}; nothing is stored when it would leave a gap ('gap').
APPEND = (
    COMMON
    + """
local id = ARGV[1]
local task = task_key(id)
local known = redis.call('HMGET', task, 'output_bytes', 'colours', 'events', 'state', 'claim', 'counts', 'listed')
if not known[1] then return {'missing', 0, 0, 0} end
local stored, colours, events = tonumber(known[1]), tonumber(known[2] or 0), tonumber(known[3])
if known[4] ~= 'running' then return {known[4], stored, colours, events} end
if known[5] ~= ARGV[2] then return {'begun again', stored, colours, events} end
local offset, data, first_colour, first_seq = tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[8])
if offset > stored or first_colour > colours or first_seq > events + 1 then return {'gap', stored, colours, events} end
local function write(name, size, from, text)
  local position = 1
  while position <= #text do
    local within = from % size
    local piece = string.sub(text, position, position + size - within - 1)
    redis.call('SETRANGE', task .. name .. math.floor(from / size), within, piece)
    position, from = position + #piece, from + #piece
  end
end
if offset + #data > stored then
  write(':output:', SEGMENT, stored, string.sub(data, stored - offset + 1))
  stored = offset + #data
end
local new_colours = #ARGV[6] / 16
if first_colour + new_colours > colours then
  write(':colours:', 16 * COLOURS, colours * 16, string.sub(ARGV[6], (colours - first_colour) * 16 + 1))
  colours = first_colour + new_colours
end
local bytes, counts = 0, list(known[6])
for i = 9, #ARGV, 4 do
  local seq = first_seq + (i - 9) / 4
  if seq > events then
    redis.call('XADD', task .. ':events', seq .. '-0', 'event', ARGV[i])
    events, bytes = seq, bytes + #ARGV[i]
    if ARGV[i + 1] ~= '' then
      redis.call('ZADD', task .. ':hosts', 'LT', ARGV[i + 2], ARGV[i + 1])
      redis.call('ZADD', task .. ':by_host', 0, by_host(ARGV[i + 1]) .. string.format('%012d', seq))
    end
    local what = ARGV[i + 3]
    if what == 'stats' then redis.call('HSET', task, 'stats_seq', seq)
    elseif what ~= '' then counts[what] = (counts[what] or 0) + 1 end
  end
end
redis.call('HSET', task, 'output_bytes', stored, 'colours', colours)
-- What is in no index goes by itself, also when nobody is left to make it final.
local hidden = redis.call('HGET', task, 'hidden')
if hidden then
  for _, key in ipairs(parts_of(id)) do redis.call('EXPIRE', key, hidden) end
end
if events > tonumber(known[3]) then
  redis.call('HSET', task, 'events', events, 'events_end', ARGV[7])
  redis.call('HINCRBY', task, 'event_bytes', bytes)
  if next(counts) then
    counts.hosts = redis.call('ZCARD', task .. ':hosts')
    redis.call('HSET', task, 'counts', cjson.encode(counts))
    -- What is not told now is told when its worker next says that it lives (RENEW), or with its end.
    if seconds() - tonumber(known[7] or 0) > 1 then
      redis.call('HSET', task, 'listed', seconds())
      redis.call('HDEL', task, 'unlisted')
      listed(id)
    else
      redis.call('HSET', task, 'unlisted', 1)
    end
  end
end
changed(id)
return {'running', stored, colours, events}
""".replace("SEGMENT", str(SEGMENT_BYTES)).replace("COLOURS", str(COLOURS_PER_SEGMENT))
)

# ARGV: id, first and last output offset. The records between them, found by bisection: they stand in order.
COLOURS = (
    COMMON
    + """
local task, per_key = task_key(ARGV[1]), PER_KEY
local count = tonumber(redis.call('HGET', task, 'colours') or 0)
local function read(first, after)
  local pieces = {}
  while first < after do
    local key, within = math.floor(first / per_key), first % per_key
    local until_ = math.min(after - key * per_key, per_key)
    table.insert(pieces, redis.call('GETRANGE', task .. ':colours:' .. key, within * 16, until_ * 16 - 1))
    first = key * per_key + until_
  end
  return table.concat(pieces)
end
local function first_from(wanted)
  local low, high = 0, count
  while low < high do
    local middle = math.floor((low + high) / 2)
    if struct.unpack('>I8', read(middle, middle + 1)) < wanted then low = middle + 1 else high = middle end
  end
  return low
end
return read(first_from(tonumber(ARGV[2])), first_from(tonumber(ARGV[3]) + 1))
""".replace("PER_KEY", str(COLOURS_PER_SEGMENT))
)

# ARGV: id, seq to begin after, most events, most bytes (one event at least), host ('' all). Gives {seq, JSON, ...}.
EVENTS = (
    COMMON
    + """
local task, host = task_key(ARGV[1]), ARGV[5]
local after, count, bytes = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local found = {}
local function take(entry)
  if #found > 0 and bytes < #entry[2][2] then return false end
  bytes = bytes - #entry[2][2]
  after = tonumber(string.match(entry[1], '^%d+'))
  table.insert(found, after)
  table.insert(found, entry[2][2])
  return #found < 2 * count
end
if host ~= '' then
  local first = '(' .. by_host(host) .. string.format('%012d', after)
  local names = redis.call('ZRANGEBYLEX', task .. ':by_host', first, '[' .. by_host(host) .. ':', 'LIMIT', 0, count)
  for _, name in ipairs(names) do
    local seq = string.format('%d', tonumber(string.sub(name, -12))) .. '-0'
    local entry = redis.call('XRANGE', task .. ':events', seq, seq)[1]
    if entry and not take(entry) then break end
  end
  return found
end
while true do
  local page = redis.call('XRANGE', task .. ':events', (after + 1) .. '-0', '+', 'COUNT', math.min(32, count))
  for _, entry in ipairs(page) do
    if not take(entry) then return found end
  end
  if #page < math.min(32, count) then return found end
end
"""
)
