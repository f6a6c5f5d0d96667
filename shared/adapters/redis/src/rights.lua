#!lua flags=no-writes
-- Answers the first command that gantry calls and the user may not, or nothing.
--
-- KEYS: one that everybody who commits may write. ARGV: a channel that everybody may speak and listen on.
local key, channel = KEYS[1], ARGV[1]
local commands = {
    { 'EVALSHA', 'sha', '1', key },
    { 'SCRIPT', 'LOAD', 'script' },
    { 'GETRANGE', key, '0', '7' },
    { 'INCR', key },
    { 'MSET', key, 'value' },
    { 'SETRANGE', key, '0', 'value' },
    { 'DEL', key },
    { 'HMGET', key, 'field' },
    { 'HSET', key, 'field', 'value' },
    { 'HDEL', key, 'field' },
    { 'ZADD', key, '0', 'member' },
    { 'ZREM', key, 'member' },
    { 'MGET', key },
    { 'ZRANGE', key, '-', '+', 'BYLEX' },
    { 'TIME' },
    { 'WAIT', '1', '1' },
    { 'PUBSUB', 'NUMSUB', channel },
    { 'PUBLISH', channel, 'message' },
    { 'SUBSCRIBE', channel },
    { 'UNSUBSCRIBE', channel },
}
for _, command in ipairs(commands) do
    if not redis.acl_check_cmd(unpack(command)) then
        return command[1]
    end
end
return false
