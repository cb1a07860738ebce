"""Polling of one account: list, compare, commit, publish."""
