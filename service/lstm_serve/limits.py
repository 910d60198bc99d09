"""Limits that are known in more than one room."""

# What a model may be called.
MODEL_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"

# The memory that a model's arrays may take, unless a setting says another.
MAX_MODEL_BYTES = 2 << 30
