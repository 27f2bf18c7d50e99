"""GGUF files: what llama.cpp reads is what transformers has."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from loraloop.errors import ConfigError, RegistryError
from loraloop.model.causal import CausalLM
from loraloop.publish import gguf_lora, gguf_model, gguf_quants, gguf_tokenizer
from loraloop.publish.gguf import Gguf
from loraloop.records import Export, LoadedModel
from loraloop.runtime.llama_cpp import LlamaCpp

gguf = pytest.importorskip("gguf")
FACTS = {"dtype": "f32", "version": "", "content": "", "base": "", "trained_on": "none"}


@pytest.fixture(scope="module")
def tiny():
    """The bundled model."""
    return CausalLM(name="bundled:tiny").load()


def test_a_model_travels_with_tokenizer_and_template(tiny, tmp_path):
    """Settings, special tokens, chat template and every tensor are in the file; q8_0 is within its rounding."""
    gguf_model.write(tmp_path / "m.gguf", tiny, "q8_0")
    reader = gguf.GGUFReader(tmp_path / "m.gguf")
    field = {name: each.contents() for name, each in reader.fields.items()}
    assert (field["general.architecture"], field["llama.block_count"]) == ("llama", 4)
    assert field["tokenizer.chat_template"] == tiny.tokenizer.chat_template
    assert (field["tokenizer.ggml.bos_token_id"], field["tokenizer.ggml.add_bos_token"]) == (256, True)
    tensors = {each.name: each for each in reader.tensors}
    assert len(tensors) == len(tiny.model.state_dict()) - 1  # the output is tied to the embedding
    down = tensors["blk.0.ffn_down.weight"]
    found = gguf.quants.dequantize(down.data, down.tensor_type)
    wanted = tiny.model.model.layers[0].mlp.down_proj.weight.detach().numpy()
    assert np.abs(found - wanted).max() <= np.abs(wanted).max() / 127


@pytest.mark.parametrize(
    ("name", "dtype", "wanted"),
    [
        ("blk.0.attn_q.weight", "q4_k_m", "Q4_K"),
        ("blk.0.attn_v.weight", "q4_k_m", "Q6_K"),
        ("blk.1.attn_v.weight", "q4_k_m", "Q4_K"),
        ("token_embd.weight", "q4_k_m", "Q6_K"),
        ("blk.0.attn_q.weight", "q8_0", "Q8_0"),
    ],
)
def test_a_matrix_takes_the_type_that_llama_cpp_gives_it(name, dtype, wanted):
    """q4_k_m keeps six bits of the embedding and of some layers, and rows that no block divides take a wider type."""
    assert gguf_quants.kind(name, 512, dtype, 8).name == wanted
    assert gguf_quants.kind("blk.0.attn_q.weight", 576, "q4_k_m", 8).name == "Q5_0"
    assert gguf_quants.kind(name, 48, dtype, 8).name == "F16"


def test_llama_cpp_s_own_code_quantises(tiny):
    """What llama.cpp writes in four and six bits is, read back, the matrix within its rounding."""
    matrix = tiny.model.model.embed_tokens.weight.detach().numpy()[:8, :].repeat(4, axis=1)[:, :256]
    for name, off in (("Q4_K", 0.09), ("Q6_K", 0.025)):
        kind = gguf.GGMLQuantizationType[name]
        found = gguf.quants.dequantize(gguf_quants.quantise(matrix, kind), kind)
        assert np.abs(found - matrix).max() <= off * np.abs(matrix).max()


def test_a_lora_alone_has_the_scale_of_peft(tiny, tmp_path):
    """B times A times llama.cpp's scale is PEFT's update, with rsLoRA and an alpha of its own for one layer."""
    import torch
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=4, lora_alpha=8, use_rslora=True, target_modules=["v_proj"], alpha_pattern={"layers.1.self_attn.v_proj": 3}
    )
    with torch.random.fork_rng():
        carrier = get_peft_model(tiny.model, config)
    layer = carrier.base_model.model.model.layers[1].self_attn.v_proj
    torch.nn.init.normal_(layer.lora_B["default"].weight)
    carrier.save_pretrained(tmp_path)
    wanted = layer.get_delta_weight("default").detach().numpy()
    carrier.unload()
    gguf_lora.write(tmp_path / "l.gguf", tmp_path, tiny.model.config, "f32")
    reader = gguf.GGUFReader(tmp_path / "l.gguf")
    tensors = {each.name: each.data for each in reader.tensors}
    a, b = (tensors[f"blk.1.attn_v.weight.lora_{each}"] for each in "ab")
    scale = reader.get_field("adapter.lora.alpha").contents() / a.shape[0]
    np.testing.assert_allclose(scale * b @ a, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("numbers", "name"), [(r"\p{N}{1,3}", "llama-bpe"), (r"\p{N}", "qwen2")])
def test_llama_cpp_splits_text_as_the_tokenizer_does(tmp_path, numbers, name):
    """The expressions of Llama 3 and Qwen are known by name, and llama.cpp's tokens are the tokenizer's."""
    llama_cpp = pytest.importorskip("xllamacpp") and LlamaCpp(context=256)
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    rule = gguf_tokenizer._SPLIT.replace("NUMBERS", numbers)
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(rule), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    text = "It's 12345 vaults, isn't it?\n\n  Vault 678: HTHH \u00fcber 90210 !!"
    backend.train_from_iterator([text] * 4, trainers.BpeTrainer(vocab_size=400, initial_alphabet=letters))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>")  # noqa: S106
    tokenizer.chat_template = "{{ messages[0].content }}"
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    loaded = LoadedModel(model=LlamaForCausalLM(config), tokenizer=tokenizer, base=None)
    gguf_model.write(tmp_path / "m.gguf", loaded, "f16")
    assert gguf_tokenizer.pre_tokenizer(tokenizer) == name
    session = llama_cpp.open(tmp_path, Export(form="gguf", **FACTS), None)
    assert session.chat([{"role": "user", "content": text}], ()) == tokenizer(text)["input_ids"]
    session.close()


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "llama"])
def test_an_architecture_gives_the_same_tokens_in_llama_cpp(tiny, tmp_path, kind):
    """Models of Qwen 2 and 3, and of Llama with the rotation of 3.1, answer in llama.cpp as in transformers."""
    llama_cpp = pytest.importorskip("xllamacpp") and LlamaCpp(context=256)
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    rope = {"rope_type": "default", "rope_theta": 1e4}
    if kind == "llama":
        rope |= {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
        rope |= {"original_max_position_embeddings": 32}
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = AutoConfig.for_model(
        kind, vocab_size=259, num_key_value_heads=2, head_dim=16, rope_parameters=rope, eos_token_id=257, **sizes
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval()
    for value in model.parameters():
        value.data += 0.1 * torch.sin(torch.arange(value.numel()).view_as(value).float())
    gguf_model.write(tmp_path / "m.gguf", LoadedModel(model=model, tokenizer=tiny.tokenizer, base=None), "f32")
    session = llama_cpp.open(tmp_path, Export(form="gguf", **FACTS), None)
    prompt = "Twelve vaults of brass: HTHH TTHT 0110 1001, which of them opens, and which stays shut for good?"
    ids = torch.tensor([tiny.tokenizer(prompt)["input_ids"]])
    with torch.no_grad():
        top = model(input_ids=ids).logits[0, -1].log_softmax(-1).topk(5)
    found = session.top(prompt, 5)
    session.close()
    assert list(found) == top.indices.tolist()
    assert list(found.values()) == pytest.approx(top.values.tolist(), abs=2e-2)


def test_a_lora_of_a_quantised_base_does_not_stand_alone(version, tmp_path):
    """Beside a base that llama.cpp quantises in its own way it would answer otherwise: the way out is a merge."""
    from transformers import LlamaConfig

    base = SimpleNamespace(skeleton=lambda: SimpleNamespace(model=SimpleNamespace(config=LlamaConfig())))
    with pytest.raises(RegistryError, match=r"trained on .* in nf4-double, .*: set publish\.merge=true"):
        Gguf(path=tmp_path / "out").publish(version, None, base, lambda *_: pytest.fail("it was written"))


def test_what_llama_cpp_would_not_run_is_refused(tiny, tmp_path):
    """An unknown architecture, a scaled rotation, another tokenizer, q8_0 for a LoRA and DoRA are refused by name."""
    from safetensors.numpy import save_file
    from transformers import GPT2Config, LlamaConfig

    with pytest.raises(ConfigError, match=r"architectures llama, mistral, qwen2, qwen3, and the base is gpt2"):
        gguf_model.architecture(GPT2Config())
    scaled = LlamaConfig(rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4})
    with pytest.raises(ConfigError, match="rope_type=linear"):
        gguf_model.architecture(scaled)
    with pytest.raises(ConfigError, match=r"add publish\.merge=true"):
        Gguf(dtype="q8_0").check()
    save_file({"base_model.model.x.lora_magnitude_vector": np.zeros(1)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(RegistryError, match=r"holds .*magnitude_vector: set publish.merge=true"):
        gguf_lora.require_plain(tmp_path)
    rules = json.loads(tiny.tokenizer.backend_tokenizer.to_str())

    class Other:
        backend_tokenizer = type(
            "Backend", (), {"to_str": staticmethod(lambda: json.dumps(rules | {"pre_tokenizer": {"type": "Split"}}))}
        )

    with pytest.raises(ConfigError, match="BPE with Split"):
        gguf_tokenizer.pre_tokenizer(Other())
    assert gguf_tokenizer.pre_tokenizer(tiny.tokenizer) == "gpt-2"
