"""Rules by which a new version wins or loses against the stable one that serves at the same time."""
