"""Base models: loading, identity and the recipe of the bundled one."""
