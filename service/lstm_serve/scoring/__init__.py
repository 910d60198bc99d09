"""A file of inputs, answered without a server: read, predicted in parts, written. Knows no HTTP."""
