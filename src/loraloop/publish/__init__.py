"""Publishers: where a registered adapter is copied for others; never over something else, whole or not at all."""
