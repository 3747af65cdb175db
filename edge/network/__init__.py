"""Opens ZeroMQ sockets: their addresses and keys, and reports of connections that fail."""
