-- Moves an action that this node holds to its queue's dead list.
--
-- KEYS[1] hash of what this node has taken
-- KEYS[2] the dead list, newest left
-- KEYS[3] set of queues that have a dead list
-- ARGV[1] delivery id
-- ARGV[2] the dead letter (JSON)
-- ARGV[3] the queue
-- ARGV[4] dead letters a queue keeps
-- ARGV[5] the letter's id where its body is kept apart, else empty
-- ARGV[6] seconds for which such a body is kept
--
-- Returns -1 where the action is no longer this node's, else how many old dead letters had to go.
local entry = redis.call('HGET', KEYS[1], ARGV[1])
if not entry then return -1 end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('DEL', 'nooble:failed:' .. redis.sha1hex(entry))
if ARGV[5] ~= '' then
  local body = string.sub(entry, string.find(entry, '\n', 1, true) + 1)
  local key = 'nooble:dead-body:' .. ARGV[5]
  redis.call('HSET', key, 'body', body)
  redis.call('EXPIRE', key, ARGV[6])
end
local length = redis.call('LPUSH', KEYS[2], ARGV[2])
redis.call('SADD', KEYS[3], ARGV[3])
local most = tonumber(ARGV[4])
if length <= most then return 0 end
for _, old in ipairs(redis.call('LRANGE', KEYS[2], most, -1)) do
  local id = string.match(old, '^{"id":"([%x-]+)"')
  if id then redis.call('DEL', 'nooble:dead-body:' .. id) end
end
redis.call('LTRIM', KEYS[2], 0, most - 1)
return length - most
