"""The page at `/` for a browser: a series in, and what the model says of it, why, and how it came to that.

It knows nothing that the service's own API does not tell it, and asks nothing of anybody else.
"""
