"""Rules by which ratings call for a new adapter."""
