"""What the agent shows over HTTP; it is handed values and callables, and asks no part itself."""
