"""From ratings to a new champion: the retraining cycle."""
