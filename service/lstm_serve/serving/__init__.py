"""Models while they are served: the queue, live series, drift, the reload, the budget of memory. Knows no HTTP."""
