"""What is normal: the support folder, its versions, what the engine matches against, and limits that fit a place."""
