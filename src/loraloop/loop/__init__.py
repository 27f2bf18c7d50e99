"""The loop's state, in the database of sessions, and what its steps are made of."""
