"""Models while they are served: the queue, the warm-up, the reload, the budget of memory. Knows no HTTP."""
