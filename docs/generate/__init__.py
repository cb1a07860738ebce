"""Generators of documents: `make docs` writes them, and a test compares them with the files."""
