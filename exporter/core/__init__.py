"""What things are and what follows: values in, values out; no I/O, no clock, no chance."""
