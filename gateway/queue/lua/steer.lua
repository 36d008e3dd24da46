#!lua flags=allow-oom
-- Sets or deletes a field of a hash, and adds an entry to the audit log: both or none.
--
-- KEYS  1 hash  2 audit log
-- ARGV  1 field  2 value ('': the field is deleted)  3 1 if there must be such a hash  4 entry of the audit log
--       5 most entries of it
-- Returns 1, or 0 if the field was there, or was not, already; -1 if there is no such hash.

if ARGV[3] == '1' and redis.call('EXISTS', KEYS[1]) == 0 then return -1 end
if (redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1) == (ARGV[2] ~= '') then return 0 end
if ARGV[2] ~= '' then redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) else redis.call('HDEL', KEYS[1], ARGV[1]) end
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[5], '*', 'entry', ARGV[4])
return 1
