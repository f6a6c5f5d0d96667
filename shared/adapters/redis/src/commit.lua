-- Commits one batch: all of it, or nothing if something that it expects does not hold.
--
-- ARGV: how many records it expects, deletes, puts and puts that are large, and how many indexes it changes; then what
-- each of these takes. KEYS: the counter of commits; then the keys of each of these, in the same order.
--
--   expect    KEYS record             ARGV version, or '' for absent
--   delete    KEYS record
--   put       KEYS record             ARGV bytes
--   large     KEYS record             ARGV 8 bytes to be overwritten, bytes
--   index     KEYS order, places      ARGV how many members; then of each: member, new place or '' for none
--
-- Answers 0, or which of the expectations is the first that does not hold. Each call of a command costs more than what
-- the command does, so there are few of them, each with many words.
local expects, deletes, puts = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local large, indexes = tonumber(ARGV[4]), tonumber(ARGV[5])
local key, arg = 1, 5

-- Calls a command with some words and then many more: Lua's stack does not hold all of them at once.
local function call_with(command, target, words)
    for from = 1, #words, 2000 do
        local upto = math.min(from + 1999, #words)
        if target then
            redis.call(command, target, unpack(words, from, upto))
        else
            redis.call(command, unpack(words, from, upto))
        end
    end
end

for i = 1, expects do
    -- An absent record reads as ''.
    if redis.call('GETRANGE', KEYS[key + i], 0, 7) ~= ARGV[arg + i] then
        return i
    end
end
key, arg = key + expects, arg + expects

local touched = {}
for i = 1, deletes do
    touched[i] = KEYS[key + i]
end
call_with('DEL', nil, touched)
key = key + deletes

if puts + large > 0 then
    local version = struct.pack('>I8', redis.call('INCR', KEYS[1]))
    local records = {}
    for i = 1, puts do
        records[2 * i - 1], records[2 * i] = KEYS[key + i], version .. ARGV[arg + i]
        touched[deletes + i] = KEYS[key + i]
    end
    call_with('MSET', nil, records)
    key, arg = key + puts, arg + puts

    -- Lua takes as long to put two large strings together as Redis to store one.
    for i = 1, large do
        redis.call('MSET', KEYS[key + i], ARGV[arg + i])
        redis.call('SETRANGE', KEYS[key + i], 0, version)
        touched[#touched + 1] = KEYS[key + i]
    end
    key, arg = key + large, arg + large
end

for i = 1, indexes do
    local order, places, members = KEYS[key + 1], KEYS[key + 2], tonumber(ARGV[arg + 1])
    key, arg = key + 2, arg + 1
    local left, removed, entered, moved = {}, {}, {}, {}
    for from = 1, members, 2000 do
        local some = {}
        for j = from, math.min(from + 1999, members) do
            some[#some + 1] = ARGV[arg + 2 * j - 1]
        end
        local before = redis.call('HMGET', places, unpack(some))
        for j, member in ipairs(some) do
            local place = ARGV[arg + 2 * (from + j - 1)]
            if before[j] and before[j] ~= place then
                left[#left + 1] = before[j] .. member
            end
            if place == '' then
                removed[#removed + 1] = member
            elseif before[j] ~= place then
                entered[#entered + 1], entered[#entered + 2] = 0, place .. member
                moved[#moved + 1], moved[#moved + 2] = member, place
            end
        end
    end
    call_with('ZREM', order, left)
    call_with('HDEL', places, removed)
    call_with('ZADD', order, entered)
    call_with('HSET', places, moved)
    arg = arg + 2 * members
end

-- Hardly anything that is touched is watched. Not `call`: a user who may write a record but not tell of it has still
-- written it.
for from = 1, #touched, 2000 do
    local hearers = redis.pcall('PUBSUB', 'NUMSUB', unpack(touched, from, math.min(from + 1999, #touched)))
    for i = 1, #hearers, 2 do
        if hearers[i + 1] > 0 then
            redis.pcall('PUBLISH', hearers[i], '')
        end
    end
end
return 0
