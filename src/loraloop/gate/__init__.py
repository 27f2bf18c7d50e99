"""The gate: whether an adapter is good enough to be promoted, and why."""
