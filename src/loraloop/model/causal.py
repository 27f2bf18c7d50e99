"""Causal language models from the package, the Hugging Face hub or a folder, optionally quantised to NF4."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import Field, model_validator

from loraloop.core.part import part
from loraloop.errors import ConfigError, ModelError
from loraloop.model import identity, nf4
from loraloop.records import Base, LoadedModel

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

BUNDLED = Path(__file__).parent / "assets"
HUB_SECONDS = 10
MODEL_FILES = ("*.safetensors", "*.json", "*.model", "*.jinja", "*.txt")


@part
class CausalLM:
    """A causal language model by name. Only safetensors are read and no code of a repository is ever run."""

    name: Annotated[str, Field(min_length=1)]
    revision: str | None = None
    weights: Literal["pretrained", "random"] = "pretrained"
    architecture: dict[str, Any] | None = None
    quantization: Literal["none", "nf4"] = "none"
    double_quantization: bool = False
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    device_map: Literal["auto"] | None = None
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    requires_gpu: bool = False
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 2e-4
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _double_needs_nf4(self) -> CausalLM:
        if self.double_quantization and self.quantization == "none":
            raise ValueError("double_quantization=true needs quantization=nf4")
        return self

    def check(self) -> None:
        """Find what would stop the loading, before any work.

        Raises:
            ConfigError: No GPU where one is required, or no such bundled model, folder or reachable repository.
        """
        problems = []
        if self.requires_gpu and not _gpu():
            problems.append(
                f"model.requires_gpu=true and this machine has no CUDA GPU for {self.name}: take model=tiny_nf4, "
                "or model.requires_gpu=false to try it on the CPU"
            )
        problem = self._missing()
        if problem:
            problems.append(problem)
        if problems:
            raise ConfigError(*problems)

    def load(self) -> LoadedModel:
        """Load the model in evaluation mode, with its tokenizer and identity.

        Raises:
            ModelError: The weights are missing, truncated, or do not fit the configuration.
        """
        folder = self._folder()
        with self._reading(folder):
            tokenizer = self._tokenizer(folder)
            model = self._random(folder) if self.weights == "random" else self._pretrained(folder)
        nf4.keep_trainable(model)
        model.eval()
        return LoadedModel(model=model, tokenizer=tokenizer, base=self._base(folder, tokenizer, self._sha256(folder)))

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
        import torch
        from transformers import AutoModelForCausalLM

        folder = self._folder()
        with self._reading(folder):
            tokenizer = self._tokenizer(folder)
            with torch.device("meta"):
                model: PreTrainedModel = AutoModelForCausalLM.from_config(self.config(), trust_remote_code=False)
        return LoadedModel(model=model, tokenizer=tokenizer, base=self._base(folder, tokenizer, sha256=""))

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
        local = self._local()
        if local is not None:
            return None if (local / "config.json").is_file() else _no_model(self.name, local)
        return _unreachable(self.name, self.revision)

    def _folder(self) -> Path | None:
        """The local folder with the model's files; fetched from the hub where they are not in its cache yet."""
        if self.weights == "random" and self.architecture is not None:
            return None
        local = self._local()
        if local is not None:
            return local
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        wanted = MODEL_FILES if self.weights == "pretrained" else MODEL_FILES[1:]
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
            nf4.quantize(model, getattr(torch, self.dtype), double=self.double_quantization)
        return model

    def _sha256(self, folder: Path | None) -> str:
        if self.weights == "random" or folder is None:
            return identity.text(self.config().to_json_string(use_diff=False))
        return identity.weights(folder)

    def _base(self, folder: Path | None, tokenizer: PreTrainedTokenizerBase, sha256: str) -> Base:
        double = "-double" if self.double_quantization else ""
        return Base(
            name=self.name,
            revision=self.revision or identity.commit(folder),
            sha256=sha256,
            tokenizer_sha256=identity.tokenizer(tokenizer),
            chat_template_sha256=identity.chat_template(tokenizer),
            quantization=f"nf4{double}" if self.quantization == "nf4" else "none",
            dtype=self.dtype,
            weights=self.weights,
        )


def _gpu() -> bool:
    import torch

    return torch.cuda.is_available()


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
