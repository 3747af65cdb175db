"""Pose messages kept in a file and sent again, and clips played as a camera would deliver them."""
