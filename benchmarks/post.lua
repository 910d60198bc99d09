-- wrk: post the lines of the file BODIES in turn, and print what was counted as one JSON line.
-- Where BODY_BYTES is set, each body has so many bytes; HEADER_LENGTH is then how many of them are JSON.
local path = os.getenv("POST_PATH")
local requests = {}
local turn = 0

function init()
  local headers = { ["Content-Type"] = "application/json" }
  local bodies = io.lines(os.getenv("BODIES"))
  local size = tonumber(os.getenv("BODY_BYTES"))
  if size then
    headers = { ["Inference-Header-Content-Length"] = os.getenv("HEADER_LENGTH") }
    local file = io.open(os.getenv("BODIES"), "rb")
    bodies = function() return file:read(size) end
  end
  for body in bodies do
    requests[#requests + 1] = wrk.format("POST", path, headers, body)
  end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function done(summary, latency)
  local failed = summary.errors
  print(string.format('COUNTED {"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, "failed": %d}',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    failed.connect + failed.read + failed.write + failed.status + failed.timeout))
end
