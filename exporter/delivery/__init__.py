"""Delivery of queued events: one service per receiver."""
