"""The forms that a model comes in, one module each: what is in the file, before any of it means something."""
