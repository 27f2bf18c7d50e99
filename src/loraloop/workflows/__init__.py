"""What several parts do together."""
