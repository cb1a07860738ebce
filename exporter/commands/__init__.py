"""The commands that do one thing and end; what only they need, and nothing that runs for months."""
