-- wrk's script: asks for the parts PREFIX0, PREFIX1, … one after the other and round again; then tells what came of it.
-- Arguments: PREFIX COUNT.

local requests, count, next_number = {}, 0, 0

function init(args)
   count = tonumber(args[2])
   for number = 0, count - 1 do
      requests[number] = wrk.format("GET", args[1] .. number)
   end
end

function request()
   local chosen = requests[next_number]
   next_number = (next_number + 1) % count
   return chosen
end

function done(summary)
   local errors = summary.errors
   local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
   io.write(string.format("figures %d %d %d %d\n", summary.requests, summary.bytes, summary.duration, failed))
end
