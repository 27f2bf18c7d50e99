"""The command line: help, faulty overrides explained, and the call of a stage."""
