"""The rows that devices send, kept for a window, or with a stateful model's states. Knows no HTTP and no JSON."""
