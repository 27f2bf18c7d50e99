"""A registered adapter is an ordinary PEFT adapter."""

from loraloop.registry.mlflow import MlflowRegistry


def test_a_registered_adapter_loads_with_plain_peft(describe_adapter, home, tmp_path):
    """PeftModel.from_pretrained on a version's folder gives the logits that the trained model gave."""
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    base = LlamaForCausalLM(LlamaConfig(vocab_size=64, **shape)).eval()
    base.save_pretrained(tmp_path / "base")
    config = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    model = get_peft_model(base, config)
    model.save_pretrained(tmp_path / "adapter")
    tokens = torch.arange(12).reshape(2, 6)
    with torch.inference_mode():
        expected = model(tokens).logits

    registry = MlflowRegistry(folder=home, name="peft")
    version = registry.register(tmp_path / "adapter", describe_adapter(tmp_path / "adapter"))
    fresh = LlamaForCausalLM.from_pretrained(tmp_path / "base")
    loaded = PeftModel.from_pretrained(fresh, version.path).eval()
    with torch.inference_mode():
        assert torch.equal(loaded(tokens).logits, expected)
        with loaded.disable_adapter():
            assert not torch.allclose(loaded(tokens).logits, expected)
