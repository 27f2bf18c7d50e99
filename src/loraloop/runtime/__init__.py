"""Runtimes: programs that load an export and answer, to see that it answers as the adapter did."""
