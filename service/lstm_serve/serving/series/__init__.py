"""The rows that devices send, kept for a window, or with a stateful model's states. Knows rows and models, no HTTP and no JSON."""
