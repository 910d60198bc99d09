-- wrk: post the lines of the file BODIES in turn, and print what was counted as one JSON line.
-- Where BODY_BYTES is set, each body has so many bytes; HEADER_LENGTH is then how many of them are JSON.
-- Where SERIES is set, the path has a %d, which stands for the numbers from 0 to below it in turn.
local path = os.getenv("POST_PATH")
local series = tonumber(os.getenv("SERIES"))
local headers = { ["Content-Type"] = "application/json" }
local bodies = {}
local requests = {}
local turn = 0

function init()
  local found = io.lines(os.getenv("BODIES"))
  local size = tonumber(os.getenv("BODY_BYTES"))
  if size then
    headers = { ["Inference-Header-Content-Length"] = os.getenv("HEADER_LENGTH") }
    local file = io.open(os.getenv("BODIES"), "rb")
    found = function() return file:read(size) end
  end
  for body in found do
    bodies[#bodies + 1] = body
    requests[#requests + 1] = wrk.format("POST", path, headers, body)
  end
end

function request()
  turn = turn + 1
  if series then
    return wrk.format("POST", path:format(turn % series), headers, bodies[turn % #bodies + 1])
  end
  return requests[turn % #requests + 1]
end

function done(summary, latency)
  local failed = summary.errors
  print(string.format('COUNTED {"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, "failed": %d}',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    failed.connect + failed.read + failed.write + failed.status + failed.timeout))
end
