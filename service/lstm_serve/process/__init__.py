"""The operating system: sockets, connections, signals, and uvicorn with the limits that it leaves open."""
