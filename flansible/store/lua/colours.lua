-- Reads the colours between two output offsets. They are stored in order, so bisection finds both ends.
--
-- KEYS: 1 the record
-- ARGV: 1 first output offset, 2 last output offset (both included), 3 colours per segment, 4 how many before the first
--       as well
-- Returns the colours as bytes, 16 each.
-- Derived keys: colours:<n> of the task.

local task, per_segment = KEYS[1], tonumber(ARGV[3])
local count = tonumber(redis.call('HGET', task, 'colours') or 0)

local function read(first, after)
  local pieces = {}
  while first < after do
    local segment, within = math.floor(first / per_segment), first % per_segment
    local stop = math.min(after - segment * per_segment, per_segment)
    table.insert(pieces, redis.call('GETRANGE', task .. ':colours:' .. segment, within * 16, stop * 16 - 1))
    first = segment * per_segment + stop
  end
  return table.concat(pieces)
end

-- Returns the number of the first colour at or after an output offset.
local function first_from(offset)
  local low, high = 0, count
  while low < high do
    local middle = math.floor((low + high) / 2)
    if struct.unpack('>I8', read(middle, middle + 1)) < offset then low = middle + 1 else high = middle end
  end
  return low
end

return read(math.max(0, first_from(tonumber(ARGV[1])) - tonumber(ARGV[4])), first_from(tonumber(ARGV[2]) + 1))
