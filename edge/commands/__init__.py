"""Implements the commands of `haad-edge` other than `run`: one module per command, and what commands share."""
