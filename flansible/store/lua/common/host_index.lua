-- Members of flansible:task:<id>:by_host, which finds a host's events without reading the others.

-- Begins with the name's length, so that no host's prefix is the prefix of another host's.
local function host_prefix(host) return #host .. ':' .. host .. '\0' end

local function host_member(host, seq) return host_prefix(host) .. string.format('%012d', seq) end
