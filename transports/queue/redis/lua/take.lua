-- Takes actions off queues into the hash of what this consumer works on, in one step.
--
-- KEYS[1]   hash of what this consumer has taken: delivery id -> queue "\n" body
-- KEYS[2..] queues, to be taken from their right ends
-- ARGV[1]   first delivery id to give out (a number; ids count up from there)
-- ARGV[2]   bytes after which no more is taken
-- ARGV[3..] how many to take from KEYS[2], KEYS[3], ...; 0 only asks for the length
--
-- Returns { taken, lengths }: taken = id, place, body, id, place, body, ... (place: 1 for KEYS[2], and so on);
-- lengths = what is left on each queue.
-- LLEN is what CLIENT TRACKING remembers: the next push to a queue whose length was read here wakes this node.
local id, budget = tonumber(ARGV[1]), tonumber(ARGV[2])
local taken, lengths = {}, {}

for at = 2, #KEYS do
  local wanted = tonumber(ARGV[at + 1])
  while wanted > 0 and budget > 0 do
    local body = redis.pcall('RPOP', KEYS[at])
    if type(body) == 'table' and body.err and #taken == 0 and not string.find(body.err, 'WRONGTYPE', 1, true) then
      -- Redis refuses to write: whoever asks must wait, and not ask again at once.
      return body
    end
    -- A key of another type is somebody's mistake: it must not stop the other queues.
    if type(body) ~= 'string' then break end
    redis.call('HSET', KEYS[1], id, KEYS[at] .. '\n' .. body)
    taken[#taken + 1] = id
    taken[#taken + 1] = at - 1
    taken[#taken + 1] = body
    id = id + 1
    wanted = wanted - 1
    budget = budget - #body
  end
  local length = redis.pcall('LLEN', KEYS[at])
  lengths[at - 1] = type(length) == 'number' and length or 0
end

return { taken, lengths }
