#!lua flags=allow-oom
-- Changes the record of an API key or of an owner, and adds an entry to the audit log: both or none.
--
-- KEYS  1 record  2 audit log  3 record of the owner that must exist ('': none must)
--       4 mark of that owner's deletion, which has begun
-- ARGV  1 version of the record that the change was made from ('': there is none yet)
--       2 entry of the audit log, JSON ('': none)  3 most entries of the audit log
--       4 number of fields to set (-1: the record is deleted)  5... their names and values, then the names of
--       fields to delete
-- Returns 'ok'; 'changed': the record has another version; 'owner': that owner does not exist.
-- Called again after it was done, it answers 'changed'.

local version = ''
if redis.call('EXISTS', KEYS[1]) == 1 then version = redis.call('HGET', KEYS[1], 'version') or '0' end
if version ~= ARGV[1] then return 'changed' end
if KEYS[3] ~= '' and (redis.call('EXISTS', KEYS[3]) == 0 or redis.call('EXISTS', KEYS[4]) == 1) then return 'owner' end

local count = tonumber(ARGV[4])
if count < 0 then
  redis.call('UNLINK', KEYS[1])
else
  for i = 5, 3 + 2 * count, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
  for i = 5 + 2 * count, #ARGV do redis.call('HDEL', KEYS[1], ARGV[i]) end
  redis.call('HINCRBY', KEYS[1], 'version', 1)
end
if ARGV[2] ~= '' then redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], '*', 'entry', ARGV[2]) end
return 'ok'
