"""What Redis does with a clip's record in one step: scripts run there one after the other.

Keys, all after one prefix: ``job:ID`` a hash, whose ``size`` counts while the clip waits; ``queue``
clips that wait, by number; ``leases`` clips that come or are worked on, by the end of their lease;
``changed`` all clips, by their last change; ``trash`` clips that are forgotten while their files
may still be there.
"""

_COMMON = """
local function key(name) return KEYS[1] .. name end
local function job(id) return key('job:' .. id) end
local function until_ms(lease_ms)
  local now = redis.call('TIME')
  return now[1] * 1000 + math.floor(now[2] / 1000) + lease_ms
end
local function touch(id)
  local place = redis.call('INCR', key('changes'))
  redis.call('ZADD', key('changed'), place, id)
  return place
end
local function forget(id)
  redis.call('DEL', job(id))
  for _, set in ipairs({'queue', 'leases', 'changed'}) do redis.call('ZREM', key(set), id) end
  redis.call('SADD', key('trash'), id)
  redis.call('INCR', key('changes'))
end
"""

RESERVE = (
    _COMMON
    + """
local id, row, lease_ms, most, bytes, room = unpack(ARGV)
local waiting = redis.call('ZRANGE', key('queue'), 0, -1)
for _, other in ipairs(redis.call('ZRANGE', key('leases'), 0, -1)) do
  waiting[#waiting + 1] = other
end
if #waiting >= tonumber(most) then return {'full', #waiting, 0} end
bytes = tonumber(bytes)
for _, other in ipairs(waiting) do
  bytes = bytes + (tonumber(redis.call('HGET', job(other), 'size')) or 0)
end
if bytes > tonumber(room) then return {'large', 0, 0} end
local number = redis.call('INCR', key('numbers'))
redis.call('HSET', job(id), 'epoch', 1, 'number', number, 'state', 'received', 'progress', '',
  'row', row, 'size', 0)
redis.call('ZADD', key('leases'), until_ms(lease_ms), id)
return {'ok', number, touch(id)}
"""
)

SAVE = (
    _COMMON
    + """
local id, epoch, state, progress, row, size, lease_ms, added = unpack(ARGV)
local last = redis.call('HGET', job(id), 'epoch')
if not last then return {'gone'} end
if last ~= epoch then return {'overtaken'} end
redis.call('HSET', job(id), 'state', state, 'progress', progress, 'row', row, 'size', size)
for place = 9, 8 + added, 2 do redis.call('HSET', job(id), ARGV[place], ARGV[place + 1]) end
for place = 9 + added, #ARGV do redis.call('HDEL', job(id), ARGV[place]) end
if tonumber(lease_ms) > 0 then
  redis.call('ZADD', key('leases'), until_ms(lease_ms), id)
else
  redis.call('ZREM', key('leases'), id)
  if state == 'queued' then
    redis.call('ZADD', key('queue'), redis.call('HGET', job(id), 'number'), id)
  end
  epoch = redis.call('HINCRBY', job(id), 'epoch', 1)
end
return {'ok', epoch, touch(id)}
"""
)

KEEP = (
    _COMMON
    + """
local id, name, kept, gone = unpack(ARGV)
if redis.call('EXISTS', job(id)) == 0 then return nil end
if redis.call('HGET', job(id), name) == gone then redis.call('HDEL', job(id), name) end
if redis.call('HSETNX', job(id), name, kept) == 1 then touch(id) end
return redis.call('HGET', job(id), name)
"""
)

CLAIM = (
    _COMMON
    + """
for _, id in ipairs(redis.call('ZRANGE', key('leases'), '-inf', until_ms(0), 'BYSCORE')) do
  if redis.call('HGET', job(id), 'state') == 'received' then
    forget(id)
  else
    redis.call('ZREM', key('leases'), id)
    redis.call('ZADD', key('queue'), redis.call('HGET', job(id), 'number'), id)
    redis.call('HSET', job(id), 'state', 'queued', 'progress', '')
    redis.call('HINCRBY', job(id), 'epoch', 1)
    touch(id)
  end
end
if ARGV[2] == '0' then return nil end
local id = redis.call('ZPOPMIN', key('queue'))[1]
if not id then return nil end
redis.call('ZADD', key('leases'), until_ms(ARGV[1]), id)
return {id, redis.call('HINCRBY', job(id), 'epoch', 1), touch(id)}
"""
)

BEAT = (
    _COMMON
    + """
local lost = {}
for place = 2, #ARGV, 3 do
  local id, epoch, progress = ARGV[place], ARGV[place + 1], ARGV[place + 2]
  if redis.call('HGET', job(id), 'epoch') ~= epoch or not redis.call('ZSCORE', key('leases'), id)
  then
    lost[#lost + 1] = id
  else
    redis.call('ZADD', key('leases'), until_ms(ARGV[1]), id)
    if redis.call('HGET', job(id), 'progress') ~= progress then
      redis.call('HSET', job(id), 'progress', progress)
      touch(id)
    end
  end
end
return lost
"""
)

CHANGES = (
    _COMMON
    + """
local found, told = {}, {}
local function tell(id)
  local place = redis.call('ZSCORE', key('changed'), id)
  if place and not told[id] then
    told[id] = true
    found[#found + 1] = {id, place, redis.call('HGETALL', job(id))}
  end
end
for _, id in ipairs(redis.call('ZRANGE', key('changed'), '(' .. ARGV[1], '+inf', 'BYSCORE')) do
  tell(id)
end
for place = 2, #ARGV do tell(ARGV[place]) end
return {redis.call('GET', key('changes')) or '0', redis.call('ZCARD', key('changed')), found}
"""
)

REMOVE = _COMMON + "forget(ARGV[1])"
