"""The log and the metrics: what happened, in lines and in numbers. Knows no HTTP."""
