"""Receives pose messages, decodes them, accounts for them, and writes them into their windows."""
