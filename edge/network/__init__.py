"""Sockets: their addresses, keys, and connections that come to nothing."""
