"""What is in `deploy/`, tried with the programs that read it."""
