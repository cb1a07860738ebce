"""Servers and clocks that do what a test tells them to; nothing here knows a test."""
