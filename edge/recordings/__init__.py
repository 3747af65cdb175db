"""Records pose messages in a file and sends them again, and plays clips as a camera would deliver them."""
