-- Announces waiting tasks that may start although no script has announced them: the process that should have sent
-- their messages has died.
--
-- KEYS: 1 flansible:waiting
-- ARGV: 1 how many wait queues to check
-- Returns {id, summary, queue, ...}.
-- Derived keys: those of common/waiting.
-- include: keys
-- include: queues
-- include: hosts
-- include: waiting

local ready = {}
for _, queue in ipairs(redis.call('SRANDMEMBER', KEYS[1], ARGV[1])) do announce_next(queue, ready) end
return ready
