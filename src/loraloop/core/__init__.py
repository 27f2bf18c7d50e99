"""What parts share and nobody should write twice."""
