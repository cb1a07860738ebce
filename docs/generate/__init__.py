"""The documents that are made out of the program: `make docs` writes them, a test compares them."""
