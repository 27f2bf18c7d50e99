"""Rules that decide by ratings whether an adapter is to be trained again."""
