-- Commits one batch: all of it, or nothing if something that it expects does not hold.
--
-- ARGV: how many records it expects, deletes and puts, and how many index entries it removes and writes; then what each
-- of these takes. KEYS: the counter of commits; then the keys of each of these, in the same order.
--
--   expect    KEYS record                 ARGV version, or '' for absent
--   delete    KEYS record
--   put       KEYS record                 ARGV bytes
--   unindex   KEYS order, places          ARGV member
--   index     KEYS order, places          ARGV place, member
--
-- Answers 0, or which of the expectations is the first that does not hold.
local expects, deletes, puts = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local unindexes, indexes = tonumber(ARGV[4]), tonumber(ARGV[5])
local key, arg = 1, 5

for i = 1, expects do
    -- An absent record reads as ''.
    if redis.call('GETRANGE', KEYS[key + i], 0, 7) ~= ARGV[arg + i] then
        return i
    end
end
key, arg = key + expects, arg + expects

-- Deletes come before puts, so they lie side by side and are told in one go at the end.
local touched, last_touched = key + 1, key + deletes + puts

for i = 1, deletes do
    redis.call('DEL', KEYS[key + i])
end
key = key + deletes

if puts > 0 then
    local version = struct.pack('>I8', redis.call('INCR', KEYS[1]))
    for i = 1, puts do
        redis.call('SET', KEYS[key + i], version .. ARGV[arg + i])
    end
end
key, arg = key + puts, arg + puts

for i = 1, unindexes do
    local order, places, member = KEYS[key + 2 * i - 1], KEYS[key + 2 * i], ARGV[arg + i]
    local place = redis.call('HGET', places, member)
    if place then
        redis.call('ZREM', order, place .. member)
        redis.call('HDEL', places, member)
    end
end
key, arg = key + 2 * unindexes, arg + unindexes

for i = 1, indexes do
    local order, places = KEYS[key + 2 * i - 1], KEYS[key + 2 * i]
    local place, member = ARGV[arg + 2 * i - 1], ARGV[arg + 2 * i]
    local before = redis.call('HGET', places, member)
    if before ~= place then
        if before then
            redis.call('ZREM', order, before .. member)
        end
        redis.call('ZADD', order, 0, place .. member)
        redis.call('HSET', places, member, place)
    end
end

for i = touched, last_touched do
    -- Not `call`: a user who may write a record but not tell of it has still written it.
    redis.pcall('PUBLISH', KEYS[i], '')
end
return 0
