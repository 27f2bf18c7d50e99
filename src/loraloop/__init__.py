"""loraloop: declarative LoRA experiments that close the loop."""

__version__ = "0.1.0"
