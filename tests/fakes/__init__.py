"""Fake servers, clocks and secrets that tests control."""
