"""TF-Serving's REST API, and KServe's v1, which has the same paths."""
