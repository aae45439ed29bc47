-- Sends the requests of the file BENCH_REQUESTS in turn (a line each: method, path, headers, body, by
-- tabs; headers as name: value, by "|"). Says when it begins, and ends with one line of JSON: what was
-- measured.
local requests, at = {}, 0

function init()
  for line in io.lines(os.getenv("BENCH_REQUESTS")) do
    local method, path, named, body = line:match("^([^\t]*)\t([^\t]*)\t([^\t]*)\t(.*)$")
    local headers = {}
    for name, value in named:gmatch("([^|:]+): ([^|]*)") do headers[name] = value end
    requests[#requests + 1] = wrk.format(method, path, headers, body ~= "" and body or nil)
  end
  io.stderr:write("the load begins\n")
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency)
  local errors = summary.errors
  print(string.format(
    'BENCH {"requests": %d, "seconds": %.6f, "p50": %.6f, "p99": %.6f, "p999": %.6f, "refused": %d, "failed": %d}',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e6,
    latency:percentile(99) / 1e6, latency:percentile(99.9) / 1e6,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
