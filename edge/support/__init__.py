"""Manages what is normal: the support folder, its versions, and the support set that the engine matches against."""
