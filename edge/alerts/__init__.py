"""From scores to alerts, and what is said of each: why, when, which movement."""
