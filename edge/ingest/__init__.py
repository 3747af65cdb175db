"""Poses in: received, decoded, accounted for, and handed to their windows."""
