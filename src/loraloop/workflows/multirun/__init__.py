"""The jobs of one multirun: packed, tracked as one sweep, sharing what they have in common."""
