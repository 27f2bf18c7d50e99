"""Publishing to S3, or anything that speaks its protocol."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from loraloop.core.extras import require
from loraloop.core.hashing import sha256
from loraloop.core.part import part
from loraloop.errors import ConfigError, RegistryError
from loraloop.publish.bundle import Form, chosen, marker, may_differ
from loraloop.records import Score, Version

DIGEST = "sha256"
"""Object metadata key with the content's SHA-256."""


@part
class S3:
    """Uploads a version to ``s3://bucket/prefix/NAME-vN/``, the manifest last.

    Credentials and region come from boto3's usual places (environment, ``~/.aws``, the machine's role).

    Attributes:
        endpoint: Address of an S3-compatible server; ``None`` is AWS.
        form: What is uploaded.
        export: Folder of the export, or one that holds it; ``None``: where it was published last.
        license: The Hub's name of a licence, for the card.
    """

    bucket: Annotated[str, Field(min_length=3, max_length=63)] | None = None
    prefix: Annotated[str, Field(pattern=r"^[^/].*[^/]$|^[^/]?$")] = "adapters"
    endpoint: str | None = None
    form: Form = "adapter"
    export: Path | None = None
    license: str | None = None

    def check(self) -> None:
        """Ask for the bucket.

        Raises:
            ConfigError: There is no bucket, no credentials, no answer within 15 s, or boto3 is not installed.
        """
        if self.bucket is None:
            raise ConfigError("publish.bucket=null: publishing to S3 needs a bucket; set publish.bucket=NAME")
        try:
            client = self._client(connect_timeout=5, read_timeout=5, retries={"total_max_attempts": 1})
            client.head_bucket(Bucket=self.bucket)
        except _failures() as error:
            raise ConfigError(
                f"publish.bucket={self.bucket} cannot be reached at {self.endpoint or 'AWS'} ({error}); check the "
                "name, the credentials (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY or AWS_PROFILE) and publish.endpoint"
            ) from error

    def publish(
        self, version: Version, scores: Score | None = None, export: Path | None = None, chat: str | None = None
    ) -> str:
        """Upload a version with its model card; what is there already in equal form is left as it is.

        Args:
            version: A registered, verified version.
            scores: What it scored, for the card.
            export: Folder of an export that is copied instead of the adapter.
            chat: The chat template beside the adapter, where it is not the base's own.

        Returns:
            The ``s3://`` address.

        Raises:
            RegistryError: Something else is at that address, or the upload failed; without a manifest there,
                nothing counts as published, and repeating goes on where it stopped.
        """
        name = export.name if export else f"{version.name}-v{version.number}"
        folder = "/".join(filter(None, (self.prefix, name)))
        address = f"s3://{self.bucket}/{folder}"
        files = chosen(version, scores, name, self.license, export, chat)
        try:
            client = self._client(connect_timeout=10, read_timeout=60)
            for each in self._absent(client, folder, files):
                self._put(client, f"{folder}/{each}", files[each], last=each == marker(files))
        except _failures() as error:
            raise RegistryError(f"{address} could not be written ({error}); repeat to go on") from error
        return address

    def _absent(self, client: Any, folder: str, files: Mapping[str, Path | bytes]) -> list[str]:
        """The names that are still to upload, in order, after a look at what is there."""
        there = {name: self._digest(client, f"{folder}/{name}") for name in files}
        complete = there[marker(files)] is not None
        for name, found in there.items():
            # People edit the card of what they published, and it tells what was measured since.
            if not may_differ(name) and found not in (None, sha256(files[name])):
                address = f"s3://{self.bucket}/{folder}/{name}"
                raise RegistryError(f"{address} exists and is not this version's; choose another publish.prefix")
        return [
            name
            for name, found in there.items()
            if found is None or (not complete and may_differ(name) and found != sha256(files[name]))
        ]

    def _digest(self, client: Any, key: str) -> str | None:
        """The SHA-256 that an object was uploaded with, empty when it has none, ``None`` when there is no object."""
        try:
            return str(client.head_object(Bucket=self.bucket, Key=key)["Metadata"].get(DIGEST, ""))
        except require("botocore.exceptions", "s3").ClientError as error:
            if error.response["Error"]["Code"] in ("404", "NoSuchKey", "NotFound"):
                return None
            raise

    def _put(self, client: Any, key: str, content: Path | bytes, *, last: bool) -> None:
        metadata = {DIGEST: sha256(content)}
        if last:
            body = content if isinstance(content, bytes) else content.read_bytes()
            # Only one of two publishers that arrive together may complete the folder.
            client.put_object(Bucket=self.bucket, Key=key, Body=body, Metadata=metadata, IfNoneMatch="*")
            return
        stream = io.BytesIO(content) if isinstance(content, bytes) else content.open("rb")
        with stream:
            client.upload_fileobj(stream, self.bucket, key, ExtraArgs={"Metadata": metadata})

    def _client(self, **settings: Any) -> Any:
        config = require("botocore.config", "s3").Config(**settings)
        return require("boto3.session", "s3").Session().client("s3", endpoint_url=self.endpoint, config=config)


def _failures() -> tuple[type[Exception], ...]:
    """What boto3 raises when a request cannot be made or is refused."""
    boto = require("boto3.exceptions", "s3")
    core = require("botocore.exceptions", "s3")
    return boto.Boto3Error, core.BotoCoreError, core.ClientError, ValueError  # ValueError: a malformed endpoint
