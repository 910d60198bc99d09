"""A file of inputs, or rows as they come, answered without a server, and held against what is right. Knows no HTTP."""
