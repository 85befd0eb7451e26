-- Puts an action whose listener failed back to the front of its queue, unless it has had its deliveries.
--
-- KEYS[1] hash of what this node has taken
-- KEYS[2] the action's queue
-- ARGV[1] delivery id
-- ARGV[2] deliveries after which it counts as poison
-- ARGV[3] seconds for which failures are remembered
--
-- Returns 0 where the action is no longer this node's, 1 where it went back, 2 where it is poison: then it stays in
-- KEYS[1] until dead-letter.lua takes it.
local entry = redis.call('HGET', KEYS[1], ARGV[1])
if not entry then return 0 end
local failures = 'nooble:failed:' .. redis.sha1hex(entry)
local count = redis.call('INCR', failures)
redis.call('EXPIRE', failures, ARGV[3])
if count >= tonumber(ARGV[2]) then return 2 end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('RPUSH', KEYS[2], string.sub(entry, string.find(entry, '\n', 1, true) + 1))
return 1
