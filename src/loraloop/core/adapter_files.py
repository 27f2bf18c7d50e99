"""The files of an adapter's folder: PEFT's two, and loraloop's manifest beside them."""

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
MANIFEST = "manifest.json"
