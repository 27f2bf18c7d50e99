"""Registries: versions of adapters, their aliases and the ledger of who served when."""
