-- Moves an action that this node holds to its queue's dead list.
--
-- KEYS[1] hash of what this node has taken
-- KEYS[2] the dead list, newest left
-- KEYS[3] set of queues that have a dead list
-- ARGV[1] delivery id
-- ARGV[2] the dead letter (JSON)
-- ARGV[3] the queue
-- ARGV[4] dead letters a queue keeps
--
-- Returns -1 where the action is no longer this node's, else how many old dead letters had to go.
local entry = redis.call('HGET', KEYS[1], ARGV[1])
if not entry then return -1 end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('DEL', 'nooble:failed:' .. redis.sha1hex(entry))
local length = redis.call('LPUSH', KEYS[2], ARGV[2])
redis.call('SADD', KEYS[3], ARGV[3])
local most = tonumber(ARGV[4])
if length <= most then return 0 end
redis.call('LTRIM', KEYS[2], 0, most - 1)
return length - most
