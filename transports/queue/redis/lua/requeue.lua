-- Puts actions back to the front of their queue as if they had never been taken: it was not their fault.
--
-- KEYS[1] hash of what this consumer has taken
-- KEYS[2] the queue
-- ARGV    delivery ids, the youngest first
--
-- Returns how many went back; the others are no longer this consumer's.
local returned = 0
for _, id in ipairs(ARGV) do
  local entry = redis.call('HGET', KEYS[1], id)
  if entry then
    redis.call('HDEL', KEYS[1], id)
    redis.call('RPUSH', KEYS[2], string.sub(entry, string.find(entry, '\n', 1, true) + 1))
    returned = returned + 1
  end
end
return returned
