"""The demonstration of the loop, with simulated users."""
