"""The agent: what runs, how it is rebuilt on reload, how it stops."""
