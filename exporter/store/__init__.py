"""Persistent state of the agent: accounts, events and deliveries in one database."""
