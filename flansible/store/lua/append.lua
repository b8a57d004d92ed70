-- Stores new output, colours and events of a run, while the task runs under this claim. What was stored before is
-- skipped, so that a retry stores nothing twice; nothing is stored when it would leave a gap.
--
-- KEYS: 1 the record
-- ARGV: 1 token of the claim, 2 offset of the output, 3 output, 4 number of the first colour, 5 colours (16 bytes each),
--       6 output offset at which the last event ends, 7 seq of the first event, 8 output bytes per segment,
--       9 colours per segment, 10 name of the last play task that starts ('': none), then for each event: JSON, host
--       ('': none), the host's rank (0: failed, 1: not), and what to count: the verdict of a result, `play_tasks`,
--       `stats` (its seq is kept instead), or ''
-- Returns {outcome, stored output bytes, colours, events}; outcome: `running` (stored), `gap`, `missing`, or what
--   common/claims says.
-- Derived keys: events, hosts, by_host, output:<n> and colours:<n> of the task; those of common/changes.
-- include: keys
-- include: changes
-- include: claims
-- include: record_keys
-- include: host_index

local FIRST_EVENT = 11  -- in ARGV
local task = KEYS[1]
local id, events_key, hosts, by_host = task_id(task), task .. ':events', task .. ':hosts', task .. ':by_host'
local token, offset, data, first_colour, colour_data, events_end, first_seq = unpack(ARGV, 1, 7)
local segment_bytes, colours_per_segment, play_task = tonumber(ARGV[8]), tonumber(ARGV[9]), ARGV[10]
offset, first_colour, first_seq = tonumber(offset), tonumber(first_colour), tonumber(first_seq)
local record = redis.call('HMGET', task, 'output_bytes', 'colours', 'events', 'state', 'token', 'counts', 'listed')
if not record[1] then return {'missing', 0, 0, 0} end
local stored, colours, events = tonumber(record[1]), tonumber(record[2] or 0), tonumber(record[3])
local events_before = events
local standing = standing_of(token, record[4], record[5])
if standing ~= 'running' then return {standing, stored, colours, events} end
if offset > stored or first_colour > colours or first_seq > events + 1 then return {'gap', stored, colours, events} end

-- Writes text at an offset of a value that is cut into segments of `size` bytes.
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
  write(':output:', segment_bytes, stored, string.sub(data, stored - offset + 1))
  stored = offset + #data
end
local new_colours = #colour_data / 16
if first_colour + new_colours > colours then
  write(':colours:', 16 * colours_per_segment, colours * 16, string.sub(colour_data, (colours - first_colour) * 16 + 1))
  colours = first_colour + new_colours
end
local bytes, counts, seqs_by_field = 0, decode(record[6]), {}
for i = FIRST_EVENT, #ARGV, 4 do
  local seq = first_seq + (i - FIRST_EVENT) / 4
  if seq > events then
    local json, host, rank, what = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
    redis.call('XADD', events_key, seq .. '-0', 'event', json)
    events, bytes = seq, bytes + #json
    if host ~= '' then
      redis.call('ZADD', hosts, 'LT', rank, host)
      local field = host_field(host_part(seq), host)
      seqs_by_field[field] = (seqs_by_field[field] or '') .. packed_seq(seq)
    end
    if what == 'stats' then redis.call('HSET', task, 'stats_seq', seq)
    elseif what ~= '' then counts[what] = (counts[what] or 0) + 1 end
  end
end
for field, seqs in pairs(seqs_by_field) do
  redis.call('HSET', by_host, field, (redis.call('HGET', by_host, field) or '') .. seqs)
end
redis.call('HSET', task, 'output_bytes', stored, 'colours', colours)
-- A hidden task is in no index: its keys must expire even when no process is left to make it final.
local hidden_seconds = redis.call('HGET', task, 'hidden')
if hidden_seconds then
  for _, key in ipairs(record_keys(id, segment_bytes, colours_per_segment)) do
    redis.call('EXPIRE', key, hidden_seconds)
  end
end
if events > events_before then
  redis.call('HSET', task, 'events', events, 'events_end', events_end)
  redis.call('HINCRBY', task, 'event_bytes', bytes)
  if play_task ~= '' then redis.call('HSET', task, 'play_task', play_task) end
  if next(counts) then
    counts.hosts = redis.call('ZCARD', hosts)
    redis.call('HSET', task, 'counts', cjson.encode(counts))
    -- Lists are notified once a second at most. A result that comes sooner is announced when its worker renews its
    -- leases (renew_leases.lua), or with the final state.
    if now_seconds() - tonumber(record[7] or 0) > 1 then
      redis.call('HSET', task, 'listed', now_seconds())
      redis.call('HDEL', task, 'unlisted')
      list_entry_changed(id)
    else
      redis.call('HSET', task, 'unlisted', 1)
    end
  end
end
publish_change(id)
return {'running', stored, colours, events}
