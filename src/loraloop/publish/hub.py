"""Publishing to the Hugging Face Hub."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from loraloop.core.part import part
from loraloop.errors import ConfigError, RegistryError
from loraloop.publish.bundle import Form, chosen, marker
from loraloop.records import Score, Version

if TYPE_CHECKING:
    from huggingface_hub import HfApi

SECONDS = 10
"""Time that the pre-flight waits for the Hub."""


@part
class Hub:
    """Uploads a version as one commit to the model repository ``repo_id``, which is created where it is missing.

    Attributes:
        repo_id: ``USER/NAME``; one repository holds one version.
        private: Visibility of a repository that is created.
        endpoint: Address of a Hub of one's own; ``None`` is ``HF_ENDPOINT`` or huggingface.co.
        form: What is uploaded.
        export: Folder of the export, or one that holds it; ``None``: where it was published last.
        license: The Hub's name of a licence, for the card.
    """

    repo_id: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")] | None = None
    private: bool = True
    endpoint: str | None = None
    form: Form = "adapter"
    export: Path | None = None
    license: str | None = None

    def check(self) -> None:
        """Ask the Hub who the token belongs to.

        Raises:
            ConfigError: There is no repository name, no token, no network, or the token is not accepted.
        """
        if self.repo_id is None:
            raise ConfigError(
                "publish.repo_id=null: publishing to the Hub needs a repository; set publish.repo_id=USER/NAME"
            )
        api = self._api()
        if not api.token:
            raise ConfigError(
                "publish=hub needs a token that may write: set HF_TOKEN, or run `hf auth login`; "
                "tokens are made at https://huggingface.co/settings/tokens"
            )
        _reach(api.endpoint, str(api.token))

    def publish(
        self, version: Version, scores: Score | None = None, export: Path | None = None, chat: str | None = None
    ) -> str:
        """Upload a version with its model card; a repository that holds it already is left as it is.

        Args:
            version: A registered, verified version.
            scores: What it scored, for the card.
            export: Folder of an export that is copied instead of the adapter.
            chat: The chat template beside the adapter, where it is not the base's own.

        Returns:
            The repository's address.

        Raises:
            RegistryError: The repository holds something else, or the upload failed; the repository is as it was.
        """
        from huggingface_hub import CommitOperationAdd

        # The class belongs to whichever HTTP library this huggingface_hub uses.
        from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

        repo = str(self.repo_id)
        files = chosen(version, scores, repo, self.license, export, chat)
        api = self._api()
        try:
            api.create_repo(repo, private=self.private, exist_ok=True)
            head = api.model_info(repo)
            if not self._published(api, {file.rfilename for file in head.siblings or ()}, files):
                api.create_commit(
                    repo,
                    operations=[CommitOperationAdd(name, content) for name, content in files.items()],
                    commit_message=f"{version.name} version {version.number}",
                    parent_commit=head.sha,  # refused when somebody else wrote in between
                )
        except (HTTPError, OSError) as error:
            first = str(error).strip().partition("\n")[0]
            raise RegistryError(
                f"{repo} could not be written at {api.endpoint} ({first}); nothing was published"
            ) from error
        return f"{api.endpoint}/{repo}"

    def _published(self, api: HfApi, there: set[str], files: Mapping[str, Any]) -> bool:
        """Whether the repository holds this version; raises where it holds another adapter."""
        last = marker(files)
        if last in there:
            with TemporaryDirectory() as folder:
                found = Path(api.hf_hub_download(str(self.repo_id), last, local_dir=folder)).read_bytes()
            ours = files[last]
            if found == (ours if isinstance(ours, bytes) else ours.read_bytes()):
                return True
        foreign = sorted(there & set(files))
        if foreign:
            raise RegistryError(
                f"{self.repo_id} holds another adapter ({', '.join(foreign)}), and nothing is overwritten; "
                "choose another publish.repo_id"
            )
        return False

    def _api(self) -> HfApi:
        from huggingface_hub import HfApi, get_token

        return HfApi(endpoint=self.endpoint, token=get_token())


def _reach(endpoint: str, token: str) -> None:
    from urllib.error import HTTPError, URLError
    from urllib.request import Request, urlopen

    request = Request(f"{endpoint}/api/whoami-v2", headers={"Authorization": f"Bearer {token}"})  # noqa: S310
    try:
        with urlopen(request, timeout=SECONDS) as answer:  # noqa: S310 (the Hub's own address)
            json.load(answer)
    except HTTPError as error:
        raise ConfigError(
            f"publish=hub: {endpoint} does not accept the token (HTTP {error.code}); set HF_TOKEN"
        ) from error
    except (URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise ConfigError(
            f"publish=hub: {endpoint} cannot be reached ({reason}); use publish=folder offline"
        ) from error
