-- Counters of GET /metrics, which never fall. Needs common/keys.
-- Derived keys: flansible:metrics.

local BOUNDS = {'0.1', '0.3', '1', '3', '10', '30', '60', '180', '600', '1800', '3600', '10800', '86400'}

local function count_metric(name, number)
  if number ~= 0 then redis.call('HINCRBY', PREFIX .. 'metrics', name, number) end
end

-- Adds a duration to a histogram: to the first of its buckets that takes it, and to its sum.
local function observe_seconds(name, seconds)
  local bucket = '+Inf'
  for _, bound in ipairs(BOUNDS) do
    if seconds <= tonumber(bound) then
      bucket = bound
      break
    end
  end
  redis.call('HINCRBY', PREFIX .. 'metrics', name .. ':' .. bucket, 1)
  redis.call('HINCRBYFLOAT', PREFIX .. 'metrics', name .. ':sum', math.max(seconds, 0))
end
