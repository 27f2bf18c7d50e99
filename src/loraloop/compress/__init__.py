"""Smaller forms of an adapter: a lower rank by truncated SVD, and weights in 8 or 4 bits."""
