"""What `haad-edge` does that is not the engine: one module a command, and what commands share."""
