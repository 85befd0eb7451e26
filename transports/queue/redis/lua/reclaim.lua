-- Puts what a dead node had taken back to the front of its queues, in the order in which it was taken.
-- Of several nodes that try, one finds something; the others find nothing.
--
-- KEYS[1] lease of the dead node
-- KEYS[2] hash of what it has taken, with "hot:" fields: hot:<list> -> queue from which that list was filled
-- KEYS[3] set of all nodes
-- KEYS[4] hash of what the calling node has taken
-- ARGV[1] the dead node
-- ARGV[2] first delivery id that the caller gives out
-- ARGV[3] deliveries after which an action counts as poison
-- ARGV[4] seconds for which failures are remembered
--
-- Returns { returned, { id, queue, body, ... } }: how many went back, and those that are poison, which are the
-- caller's now (in KEYS[4]) to be buried. An empty table where the node lives.
if redis.call('EXISTS', KEYS[1]) == 1 then return {} end
local fields = redis.call('HGETALL', KEYS[2])
local entries, hot = {}, {}
for at = 1, #fields, 2 do
  local list = string.match(fields[at], '^hot:(.*)$')
  if list then
    hot[#hot + 1] = { list, fields[at + 1] }
  else
    entries[#entries + 1] = { tonumber(fields[at]) or 0, fields[at + 1] }
  end
end
-- What a BLMOVE moved last is younger than all that is in the hash; the lists are numbered in their order.
for _, pair in ipairs(hot) do
  local age = 1e15 + 1e7 * (tonumber(string.match(pair[1], '(%d+)$')) or 0)
  local body = redis.call('RPOP', pair[1])
  while body do
    age = age + 1
    entries[#entries + 1] = { age, pair[2] .. '\n' .. body }
    body = redis.call('RPOP', pair[1])
  end
end
table.sort(entries, function(a, b) return a[1] > b[1] end)

local id, returned, poison = tonumber(ARGV[2]), 0, {}
for _, pair in ipairs(entries) do
  local entry = pair[2]
  local cut = string.find(entry, '\n', 1, true)
  local queue, body = string.sub(entry, 1, cut - 1), string.sub(entry, cut + 1)
  local failures = 'nooble:failed:' .. redis.sha1hex(entry)
  local count = redis.call('INCR', failures)
  redis.call('EXPIRE', failures, ARGV[4])
  if count >= tonumber(ARGV[3]) then
    redis.call('HSET', KEYS[4], id, entry)
    poison[#poison + 1] = id
    poison[#poison + 1] = queue
    poison[#poison + 1] = body
    id = id + 1
  else
    redis.call('RPUSH', queue, body)
    returned = returned + 1
  end
end
redis.call('DEL', KEYS[2])
redis.call('SREM', KEYS[3], ARGV[1])
return { returned, poison }
