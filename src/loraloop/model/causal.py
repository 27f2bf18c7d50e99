"""Causal language models from the package, the Hugging Face hub or a folder, optionally quantised to NF4."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import Field

from loraloop.core.part import part
from loraloop.errors import ConfigError, ModelError
from loraloop.model import gguf, identity, nf4
from loraloop.records import Base, LoadedModel

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

BUNDLED = Path(__file__).parent / "assets"
HUB_SECONDS = 10
log = logging.getLogger(__name__)
MODEL_FILES = ("*.safetensors", "*.json", "*.model", "*.jinja", "*.txt")


@part
class CausalLM:
    """A causal language model by name. Only safetensors are read and no code of a repository is ever run.

    Attributes:
        otherwise: Name that takes the place of ``name`` where the hub's files are neither kept here nor within reach.
        quantization: ``auto`` is NF4 on a GPU and none on a CPU.
        double_quantization: ``auto`` is what goes with NF4.
        dtype: ``auto`` is a half-precision type that the GPU has, and float32 on a CPU.
    """

    name: Annotated[str, Field(min_length=1)]
    revision: str | None = None
    otherwise: Annotated[str, Field(pattern=r"^gguf:\w+/.+")] | None = None
    weights: Literal["pretrained", "random"] = "pretrained"
    architecture: dict[str, Any] | None = None
    quantization: Literal["auto", "none", "nf4"] = "none"
    double_quantization: Literal["auto"] | bool = False
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    device_map: Literal["auto"] | None = None
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    requires_gpu: bool = False
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 2e-4
    seed: Annotated[int, Field(ge=0)] = 0

    def check(self) -> None:
        """Find what would stop the loading, before any work.

        Raises:
            ConfigError: With every reason: settings that exclude each other or need a GPU that is not there, and no
                such bundled model, folder or reachable repository.
        """
        problems = [*self._clashes(), *filter(None, [self._missing()])]
        if problems:
            raise ConfigError(*problems)

    def _clashes(self) -> Iterator[str]:
        """What of the settings cannot be, here or anywhere."""
        if self.double_quantization is True and self.quantization == "none":
            yield "model.double_quantization=true needs model.quantization=nf4, or model.double_quantization=auto"
        if _gpu():
            return
        if self.requires_gpu:
            yield (
                f"model.requires_gpu=true and this machine has no CUDA GPU for {self.name}: take model=tiny_nf4, "
                "or model.requires_gpu=false to try it on the CPU"
            )
        if self.attention == "flash_attention_2":
            yield "model.attention=flash_attention_2 needs a CUDA GPU: take model.attention=sdpa"

    def load(self) -> LoadedModel:
        """Load the model in evaluation mode, with its tokenizer and identity.

        Raises:
            ModelError: The weights are missing, truncated, or do not fit the configuration.
        """
        return self._settled()._load()

    def _load(self) -> LoadedModel:
        folder = self._folder()
        with self._reading(folder):
            tokenizer = self._tokenizer(folder)
            model = self._random(folder) if self.weights == "random" else self._pretrained(folder)
        if self.name.startswith(gguf.PREFIX):
            log.info("the base is %s: its quantised weights lie as float32 in %s", self.name, folder)
        nf4.keep_trainable(model)
        model.eval()
        base = self._base(folder, tokenizer, self._sha256(folder))
        if self.quantization == "nf4":
            base = replace(base, block_size=nf4.block_size(model))
        return LoadedModel(model=model, tokenizer=tokenizer, base=base)

    def _settled(self) -> CausalLM:
        """The same with every ``auto`` decided by what the machine has, and with the name that is taken."""
        quantization = ("nf4" if _gpu() else "none") if self.quantization == "auto" else self.quantization
        double = quantization == "nf4" if self.double_quantization == "auto" else self.double_quantization
        dtype = _fast_dtype() if self.dtype == "auto" else self.dtype
        named = {"name": self.otherwise, "revision": None, "otherwise": None} if self._takes_other() else {}
        return replace(self, quantization=quantization, double_quantization=double, dtype=dtype, **named)  # type: ignore[arg-type]

    def _takes_other(self) -> bool:
        """Whether ``otherwise`` is what can be had; what this machine has kept of either comes before the network."""
        if self.otherwise is None or self._local() is not None or _is_cached(self.name, self.revision):
            return False
        return gguf.is_kept(self.otherwise) or _unreachable(self.name, self.revision) is not None

    def folder(self) -> Path:
        """The local folder with configuration, safetensors and tokenizer, fetched where they are not here yet.

        Raises:
            ModelError: It cannot be fetched.
        """
        found = self._settled()._folder()
        assert found is not None  # noqa: S101 (random weights of an architecture alone have none, and no adapters)
        return found

    def config(self) -> PretrainedConfig:
        """The architecture, without weights: ``architecture`` where it is given, else the repository's own."""
        from transformers import AutoConfig

        if self.architecture is not None:
            values = dict(self.architecture)
            return AutoConfig.for_model(values.pop("model_type"), **values)
        config: PretrainedConfig = AutoConfig.from_pretrained(str(self._folder()), trust_remote_code=False)
        return config

    def skeleton(self) -> LoadedModel:
        """The model without storage for its weights (PyTorch's meta device): names, shapes and tokenizer alone.

        Raises:
            ModelError: Configuration or tokenizer are missing or damaged, or need code of the repository.
        """
        return self._settled()._skeleton()

    def _skeleton(self) -> LoadedModel:
        import torch
        from transformers import AutoModelForCausalLM

        folder = self._folder()
        with self._reading(folder):
            tokenizer = self._tokenizer(folder)
            with torch.device("meta"):
                model: PreTrainedModel = AutoModelForCausalLM.from_config(self.config(), trust_remote_code=False)
        return LoadedModel(model=model, tokenizer=tokenizer, base=self._base(folder, tokenizer, sha256=""))

    def tokenizer(self) -> tuple[Base, PreTrainedTokenizerBase]:
        """The tokenizer, and the identity without that of the weights, which are neither read nor fetched.

        Raises:
            ModelError: The tokenizer is missing or damaged.
        """
        settled = self._settled()
        folder = settled._folder(weights=False)
        with settled._reading(folder):
            tokenizer = settled._tokenizer(folder)
        return settled._base(folder, tokenizer, sha256=""), tokenizer

    @contextmanager
    def _reading(self, folder: Path | None) -> Iterator[None]:
        from safetensors import SafetensorError

        try:
            yield
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
            where = folder or "model.architecture"
            raise ModelError(f"model.name={self.name} cannot be loaded from {where}: {error}") from error

    def _tokenizer(self, folder: Path | None) -> PreTrainedTokenizerBase:
        from transformers import AutoTokenizer

        from loraloop.model.tokenizer import byte_tokenizer

        if folder is None:
            return byte_tokenizer()
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        return tokenizer

    def _local(self) -> Path | None:
        if self.name.startswith("bundled:"):
            return BUNDLED / self.name.removeprefix("bundled:")
        folder = Path(self.name).expanduser()
        return folder if folder.is_dir() else None

    def _missing(self) -> str | None:
        if self.weights == "random" and self.architecture is not None:
            return None
        if self.name.startswith(gguf.PREFIX):
            problem = gguf.missing(self.name)
            return problem and f"model.name={self.name}: {problem}"
        local = self._local()
        if local is not None:
            return None if (local / "config.json").is_file() else _no_model(self.name, local)
        if self.otherwise is not None and gguf.is_kept(self.otherwise):
            return None
        problem = _unreachable(self.name, self.revision)
        instead = gguf.missing(self.otherwise) if problem and self.otherwise else problem
        return problem if instead == problem else instead and f"{problem}; or, as {instead}"

    def _folder(self, *, weights: bool = True) -> Path | None:
        """The local folder with the model's files; fetched from the hub where they are not in its cache yet."""
        if self.weights == "random" and self.architecture is not None:
            return None
        if self.name.startswith(gguf.PREFIX):
            with self._reading(Path(self.name)):
                return gguf.folder(self.name)
        local = self._local()
        if local is not None:
            if weights and self.weights == "pretrained":
                _require_safetensors(local, self.name)
            return local
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        wanted = MODEL_FILES if weights and self.weights == "pretrained" else MODEL_FILES[1:]
        try:
            return Path(snapshot_download(self.name, revision=self.revision, allow_patterns=list(wanted)))
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
            raise ModelError(f"model.name={self.name} could not be fetched: {error}") from error

    def _settings(self) -> dict[str, Any]:
        import torch

        settings: dict[str, Any] = {"dtype": getattr(torch, self.dtype), "attn_implementation": self.attention}
        if self.device_map is not None and torch.cuda.is_available():
            settings["device_map"] = self.device_map
        return settings

    def _pretrained(self, folder: Path | None) -> PreTrainedModel:
        import torch
        from transformers import AutoModelForCausalLM, BitsAndBytesConfig

        settings = self._settings()
        if self.quantization == "nf4":
            settings["quantization_config"] = BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=self.double_quantization,
                bnb_4bit_compute_dtype=getattr(torch, self.dtype),
            )
        model, report = cast("Any", AutoModelForCausalLM).from_pretrained(
            str(folder), trust_remote_code=False, use_safetensors=True, output_loading_info=True, **settings
        )
        if report["missing_keys"]:  # transformers fills them with random numbers and goes on
            raise ValueError(f"its files lack {len(report['missing_keys'])} weights that config.json asks for")
        if torch.cuda.is_available() and self.device_map is None:
            model = model.to("cuda")
        return cast("PreTrainedModel", model)

    def _random(self, folder: Path | None) -> PreTrainedModel:
        import torch
        from transformers import AutoModelForCausalLM

        device = "cuda" if torch.cuda.is_available() else "cpu"
        settings = self._settings()
        settings.pop("device_map", None)
        with torch.device(device), torch.random.fork_rng():
            torch.manual_seed(self.seed)
            model: PreTrainedModel = AutoModelForCausalLM.from_config(
                self.config(), trust_remote_code=False, **settings
            )
        if self.quantization == "nf4":
            nf4.quantize(model, getattr(torch, self.dtype), double=self.double_quantization is True)
        return model

    def _sha256(self, folder: Path | None) -> str:
        if self.weights == "random" or folder is None:
            return identity.text(self.config().to_json_string(use_diff=False))
        return identity.weights(folder)

    def _base(self, folder: Path | None, tokenizer: PreTrainedTokenizerBase, sha256: str) -> Base:
        double = "-double" if self.double_quantization else ""
        return Base(
            name=self.name,
            revision=self.revision or gguf.identity(self.name) or identity.commit(folder),
            sha256=sha256,
            tokenizer_sha256=identity.tokenizer(tokenizer),
            chat_template_sha256=identity.chat_template(tokenizer),
            quantization=f"nf4{double}" if self.quantization == "nf4" else "none",
            dtype=self.dtype,
            weights=self.weights,
            quantizer=nf4.QUANTIZER if self.quantization == "nf4" else None,
        )


def _gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _fast_dtype() -> str:
    import torch

    if not _gpu():
        return "float32"
    return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"


def _is_cached(name: str, revision: str | None) -> bool:
    """Whether the hub's cache holds a repository's configuration and weights."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "config.json", revision=revision)
    except HFValidationError:
        return False
    return isinstance(found, str) and any(Path(found).parent.glob("*.safetensors"))


def _no_model(name: str, folder: Path) -> str:
    if name.startswith("bundled:"):
        there = ", ".join(sorted(f"bundled:{path.name}" for path in BUNDLED.iterdir() if path.is_dir()))
        return f"model.name={name} is not in the package; it holds {there}"
    return f"model.name={name}: {folder} holds no config.json; name a folder that save_pretrained wrote"


def _unreachable(name: str, revision: str | None) -> str | None:
    """Why a hub repository cannot be used, or ``None``. One short request; a cached repository needs none."""
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    where = f"model.name={name}" + (f" model.revision={revision}" if revision else "")
    try:
        if isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str):
            return None
        HfApi().model_info(name, revision=revision, timeout=HUB_SECONDS)
    except HFValidationError:
        return f"{where} is neither a folder that exists nor an id of the form ORG/NAME"
    except GatedRepoError:
        return f"{where} is gated: accept its licence on its page and run `hf auth login`"
    except RevisionNotFoundError:
        return f"{where}: the repository has no such revision"
    except RepositoryNotFoundError:
        return f"{where} does not exist on the hub, or is private: check the name, or run `hf auth login`"
    except Exception as error:  # the hub's client raises a different class for every way a network fails
        return f"{where} is not in the local cache and the hub cannot be reached ({type(error).__name__}): " + (
            "connect once, or give a local folder as model.name"
        )
    return None


def _require_safetensors(folder: Path, name: str) -> None:
    """Check that a folder has weights that can be read without running anything.

    Raises:
        ModelError: It has none in safetensors; a pickle is named.
    """
    if any(folder.glob("*.safetensors")):
        return
    pickles = sorted(path.name for path in (*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")))
    found = f"only {pickles[0]}, a pickle, which is never read" if pickles else "none at all"
    raise ModelError(
        f"model.name={name}: the folder needs weights in *.safetensors and has {found}. Where you trust it, write "
        "it anew: AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)"
    )
