"""Vaults: images read by OCR, a person's own or drawn ones whose text is known."""

from __future__ import annotations

from loraloop.source.vault.source import Vault

__all__ = ["Vault"]
