"""The state of the loop: cycles, rollouts and events, in the database of the sessions."""
