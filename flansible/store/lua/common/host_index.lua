-- flansible:task:<id>:by_host finds a host's events without reading the others.
--
-- A hash. A field is `<part>:<host>`, where part p is that of the seqs from p * SEQS_PER_PART on: so what one result
-- appends to stays short. Its value is the seqs of the host's results, 4 bytes each, in order.

local SEQS_PER_PART = 4096

local function host_part(seq) return math.floor(seq / SEQS_PER_PART) end

local function host_field(part, host) return part .. ':' .. host end

local function packed_seq(seq) return struct.pack('>I4', seq) end

-- Calls take(seq) for each result of a host above `after`, until that returns false. newest: the last seq of the task.
local function each_seq(by_host, host, after, newest, take)
  for part = host_part(after), host_part(newest) do
    local seqs = redis.call('HGET', by_host, host_field(part, host)) or ''
    for position = 1, #seqs, 4 do
      local seq = struct.unpack('>I4', seqs, position)
      if seq > after and not take(seq) then return end
    end
  end
end
