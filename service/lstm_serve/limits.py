"""Limits that are known in more than one room."""

# The memory that a model's arrays may take, unless a setting says another.
MAX_MODEL_BYTES = 2 << 30
