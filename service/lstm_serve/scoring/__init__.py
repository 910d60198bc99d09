"""A file of inputs, or rows as they come, answered without a server: read, predicted, written. Knows no HTTP."""
