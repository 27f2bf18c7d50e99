"""The retraining cycle: from low ratings to a new champion."""
