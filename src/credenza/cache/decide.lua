-- What happens to one key, decided at once. KEYS[1] is the key, ARGV[1] the operation.
--
-- A key is absent, or has a lease "L<token>", or an entry "E<generation> <version> <id>", which for
-- all but tombstones goes on with a line break and the bytes. An entry of another generation than
-- the caller's counts for nothing, because a write may have been missed since then.

local stored = redis.call('GET', KEYS[1])

local function is_entry_of(generation)
  return stored and string.sub(stored, 1, #generation + 2) == 'E' .. generation .. ' '
end

local operations = {}

-- The entry and its milliseconds to live; or the caller's lease, which is left where nothing of use
-- is; or nothing, because someone else has a lease.
function operations.look(generation, token, lease_ms)
  if is_entry_of(generation) then
    return {stored, redis.call('PTTL', KEYS[1])}
  end
  if stored and string.sub(stored, 1, 1) == 'L' then
    return {}
  end
  redis.call('SET', KEYS[1], 'L' .. token, 'PX', lease_ms)
  return {token}
end

-- 1 where the caller's lease stood and the entry took its place.
function operations.fill(token, entry, ttl_ms)
  if stored ~= 'L' .. token then
    return 0
  end
  redis.call('SET', KEYS[1], entry, 'PX', ttl_ms)
  return 1
end

-- A committed write: never an older version after a newer one, and nothing where nothing is, for an
-- entry may have been evicted that was newer.
function operations.wrote(generation, version, entry, ttl_ms, channel, message)
  if is_entry_of(generation) then
    if tonumber(string.match(stored, '^%S+ (%d+) ')) < tonumber(version) then
      redis.call('SET', KEYS[1], entry, 'PX', ttl_ms)
    end
  elseif stored then
    redis.call('DEL', KEYS[1])
  end
  return redis.call('PUBLISH', channel, message)
end

-- A write whose outcome or version is not known.
function operations.drop(channel, message)
  redis.call('DEL', KEYS[1])
  return redis.call('PUBLISH', channel, message)
end

-- The generation, a number that grows: the stored one, or where none is, or all are to have another
-- one (`anew` is '1'), the proposal or the next number; all hear of it.
function operations.generation(proposal, anew, channel, sender, sent, name)
  if stored and anew ~= '1' then
    return stored
  end
  local number = math.max(tonumber(proposal), tonumber(stored or '0') + 1)
  local generation = string.format('%.0f', number)
  redis.call('SET', KEYS[1], generation)
  redis.call('PUBLISH', channel, table.concat({sender, sent, name, generation}, ' '))
  return generation
end

return operations[ARGV[1]](unpack(ARGV, 2))
