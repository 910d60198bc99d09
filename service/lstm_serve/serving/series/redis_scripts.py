"""What runs inside Redis, each script as one step that nothing comes between. Redis 5 or later, or Valkey.

A series is a hash: `form` and `by` say what its rows and its numbers are and mean, `rows` has the bytes of the last
ones, `seqs` their numbers as doubles, which are exact up to 2**53, `first` the number that it began with, `count` how
many rows were ever appended, `life` what tells it from another one that had its name, `touched` the millisecond of the
last append, `carried` what a stateful model has made of it, if one has. `sum` is a digest of these but `form`: what has
another one was written by somebody else. The index is a sorted set of the series of a model by the millisecond in which
each expires, by which they are counted.
"""

# A series, of which nothing is told where it is damaged.
READ = """
local fields = {'form', 'by', 'first', 'seqs', 'rows', 'count', 'life', 'touched', 'carried', 'sum'}
local function sum_of(had) return redis.sha1hex(table.concat(had, '|', 2, 9)) end
local function read(key)
    local stored_as = redis.call('TYPE', key).ok
    if stored_as == 'none' then return {}, 0 end
    if stored_as ~= 'hash' then return {}, 1 end
    local had = redis.call('HMGET', key, unpack(fields))
    for place = 1, 10 do
        if not had[place] then return {}, 1 end
    end
    if had[10] ~= sum_of(had) then return {}, 1 end
    return had, 0
end
"""

# What is no sorted set is no index.
CLEAR = """
local function clear_what_is_no_index(index)
    local stored_as = redis.call('TYPE', index).ok
    if stored_as ~= 'zset' and stored_as ~= 'none' then redis.call('DEL', index) end
end
"""

# What it takes to write a series, `damaged` where something else is in its place: whether there is room for it, and to
# put it there. KEYS: the series, the index. ARGV: the series' member in the index, how many rows of it are kept, how
# many series there may be, and after how many milliseconds it expires; more in each script.
WRITE = (
    READ
    + CLEAR
    + """
local key, index, member = KEYS[1], KEYS[2], ARGV[1]
local keep, most, ttl = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local had, damaged = read(key)
local expired = 0
local function whole(number) return string.format('%.0f', number) end
local function answer(verdict, ...) return {verdict, redis.call('ZCARD', index), expired, damaged, ...} end
local function is_full()
    if had[1] then return false end
    local until_then = redis.call('ZSCORE', index, member)
    if until_then and tonumber(until_then) <= now then expired = redis.call('ZREM', index, member) end
    return (not until_then or expired == 1) and redis.call('ZCOUNT', index, '(' .. whole(now), '+inf') >= most
end
local function write(has)
    has[8] = whole(now)
    has[10] = sum_of(has)
    if damaged == 1 then redis.call('DEL', key) end
    local given = {}
    for place, name in ipairs(fields) do
        given[2 * place - 1], given[2 * place] = name, has[place]
    end
    redis.call('HSET', key, unpack(given))
    redis.call('PEXPIRE', key, ttl)
    redis.call('ZADD', index, whole(now + ttl), member)
    redis.call('PEXPIRE', index, ttl + 60000)
end
clear_what_is_no_index(index)
"""
)

# ARGV from 5 on: the form, the bytes of a row, what numbers are ('none', 'count' or 'time'), what a gap does, the
# numbers and the rows that came, and the life of a series that begins. Gives the verdict, how many series there are,
# whether an expired one was found, whether what was there is damaged, and the series as it was before. What is `wrong`
# is said by the caller, whose `kept.append` comes to the same of the same rows. It has to be changed with this.
APPEND = (
    WRITE
    + """
local form, width, by, gap = ARGV[5], tonumber(ARGV[6]), ARGV[7], ARGV[8]
local seqs, rows, life = ARGV[9], ARGV[10], ARGV[11]
local function seq_of(packed, place) return (struct.unpack('<d', packed, 8 * place + 1)) end
local function row_of(bytes, place) return string.sub(bytes, width * place + 1, width * (place + 1)) end

if is_full() then return answer('full', had) end
local there = had[1] == form
if there and (had[2] == 'none') ~= (by == 'none') then return answer('wrong', had) end
local count, skip = #rows / width, 0
local base_rows, base_seqs, appended = '', '', 0
local first = by ~= 'none' and whole(seq_of(seqs, 0)) or ''
if there then
    base_rows, base_seqs, by, first, appended, life = had[5], had[4], had[2], had[3], had[6], had[7]
end
if there and by ~= 'none' then
    local kept, at = #base_seqs / 8, 0
    local oldest, last = seq_of(base_seqs, 0), seq_of(base_seqs, kept - 1)
    while skip < count and seq_of(seqs, skip) <= last do
        local seq = seq_of(seqs, skip)
        if seq < tonumber(first) then return answer('wrong', had) end
        if seq >= oldest then
            while seq_of(base_seqs, at) < seq do at = at + 1 end
            if seq_of(base_seqs, at) ~= seq or row_of(base_rows, at) ~= row_of(rows, skip) then
                return answer('wrong', had)
            end
        end
        skip = skip + 1
    end
    local missing = 0
    if skip < count and by == 'count' then missing = seq_of(seqs, skip) - last - 1 end
    if missing > 0 and gap == 'refuse' then return answer('wrong', had) end
    if missing > 0 and gap == 'reset' then
        base_rows, base_seqs, first = '', '', whole(seq_of(seqs, skip))
    elseif missing > 0 then
        local filled, packed = math.min(missing, keep), {}
        for place = 1, filled do
            packed[place] = struct.pack('<d', seq_of(seqs, skip) - filled + place - 1)
        end
        base_rows = base_rows .. string.rep(row_of(base_rows, kept - 1), filled)
        base_seqs = base_seqs .. table.concat(packed)
    end
end
if skip < count then
    base_rows = string.sub(base_rows .. string.sub(rows, width * skip + 1), -width * keep)
    base_seqs = string.sub(base_seqs .. string.sub(seqs, 8 * skip + 1), -8 * keep)
end
write({form, by, first, base_seqs, base_rows, whole(appended + count - skip), life, '', ''})
return answer('good', had)
"""
)

# Puts a series in the place of the one that was found. ARGV from 5 on: the sum of that one, '' for none, and the new
# one's fields but `sum`, in their order, of which `touched` is set here. Gives what APPEND does but the series, and
# `other` where another one is there now.
REPLACE = (
    WRITE
    + """
if (had[10] or '') ~= ARGV[5] then return answer('other') end
if is_full() then return answer('full') end
write({unpack(ARGV, 6)})
return answer('good')
"""
)

# KEYS: the series. Gives whether what is there is damaged, the series, and how many milliseconds ago the last row came.
LOOK = (
    READ
    + """
local had, damaged = read(KEYS[1])
local time, age = redis.call('TIME'), 0
if had[1] then age = time[1] * 1000 + math.floor(time[2] / 1000) - had[8] end
return {damaged, had, age}
"""
)

# Deletes a series. KEYS: the series, the index. ARGV: its member in the index. Gives how many series are left.
FORGET = (
    CLEAR
    + """
clear_what_is_no_index(KEYS[2])
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return redis.call('ZCARD', KEYS[2])
"""
)

# KEYS: the index. Gives how many series there are, and the members, 1000 at most, of those that have expired since. Its
# ZADD changes nothing, but fails where Redis is full, or may not write.
EXPIRE = (
    CLEAR
    + """
clear_what_is_no_index(KEYS[1])
redis.call('ZADD', KEYS[1], 'XX', 0, '')
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
local gone = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 1000)
if #gone > 0 then redis.call('ZREM', KEYS[1], unpack(gone)) end
return {redis.call('ZCARD', KEYS[1]), gone}
"""
)
