"""Arrays in, arrays out: a closed set of operations, and the scan through time. Knows no file and no HTTP."""
