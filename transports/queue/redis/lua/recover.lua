-- Moves bodies out of a list that a BLMOVE filled into the hash of what the consumer has taken: all of them, after a
-- connection broke and nobody knows what was moved, or one that is known.
--
-- KEYS[1] hash of what this consumer has taken
-- KEYS[2] the list
-- ARGV[1] first delivery id to give out
-- ARGV[2] queue from which the list was filled
-- ARGV[3] the one body to move, or how many bytes it has, where it is large; without it, all
-- ARGV[4] "length" where ARGV[3] is that
--
-- Returns id, body, id, body, ..., oldest first; nothing where the body was not there. By length only the id, and nothing
-- where there are several of it, or the list is long.
local id, moved = tonumber(ARGV[1]), {}

local function keep(body)
  redis.call('HSET', KEYS[1], id, ARGV[2] .. '\n' .. body)
  moved[#moved + 1] = id
  moved[#moved + 1] = body
  id = id + 1
end

-- To look at all of a long list would copy each of its bodies.
local MOST = 8

if ARGV[4] == 'length' then
  if redis.call('LLEN', KEYS[2]) > MOST then return {} end
  local length, found = tonumber(ARGV[3]), nil
  for _, body in ipairs(redis.call('LRANGE', KEYS[2], 0, -1)) do
    if #body == length then
      if found and found ~= body then return {} end
      found = body
    end
  end
  if not found then return {} end
  redis.call('LREM', KEYS[2], -1, found)
  keep(found)
  return { id - 1 }
elseif ARGV[3] then
  if redis.call('LREM', KEYS[2], -1, ARGV[3]) == 1 then keep(ARGV[3]) end
else
  local body = redis.call('RPOP', KEYS[2])
  while body do
    keep(body)
    body = redis.call('RPOP', KEYS[2])
  end
end
return moved
