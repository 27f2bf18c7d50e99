"""Generation with a base in memory and many adapters, several answers at a time."""
