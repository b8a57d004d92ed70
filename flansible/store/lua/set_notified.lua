-- Replaces what notifications ask for, unless a definition was changed since the caller has read them.
--
-- KEYS: 1 flansible:notified
-- ARGV: 1 the version that the caller knows, then events, none: nothing is asked for
-- Returns 1, or 0 for another version.

if (redis.call('HGET', KEYS[1], 'version') or '') ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
if ARGV[1] ~= '' then redis.call('HSET', KEYS[1], 'version', ARGV[1]) end
for i = 2, #ARGV do redis.call('HSET', KEYS[1], ARGV[i], 1) end
return 1
