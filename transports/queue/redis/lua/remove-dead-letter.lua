-- Takes one dead letter off its list, and puts its body on the queue again where one is given.
--
-- KEYS[1] the dead list
-- KEYS[2] the queue
-- KEYS[3] set of queues that have a dead list
-- KEYS[4] the body where it is kept apart
-- ARGV[1] the dead letter, exactly as it stands on the list
-- ARGV[2] "replay", or anything else to drop it
-- ARGV[3] the body
--
-- Returns 1, or 0 where the letter was gone already.
if redis.call('LREM', KEYS[1], -1, ARGV[1]) == 0 then return 0 end
redis.call('DEL', KEYS[4])
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('SREM', KEYS[3], KEYS[2]) end
if ARGV[2] == 'replay' then redis.call('LPUSH', KEYS[2], ARGV[3]) end
return 1
