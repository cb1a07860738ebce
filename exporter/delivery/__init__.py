"""Send what is owed: one loop per receiver; who is owed what, and for how long, the store knows."""
