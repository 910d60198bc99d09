"""The rows that devices send, kept until they make a window. Knows rows and models, no HTTP and no JSON."""
