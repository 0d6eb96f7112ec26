"""The model hub, through huggingface_hub (which only the tools image has), with errors that say what to do."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from trtllm_operator.builder import download, files, model
from trtllm_operator.builder.disk import is_full
from trtllm_operator.builder.download import Address
from trtllm_operator.builder.files import Entry, Hashed
from trtllm_operator.builder.report import Failure

# Before the library is imported, because it reads them once: bars garble a log.
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

_REPO = re.compile(r"(?=.{1,193}$)[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_TOKEN = re.compile(r"[!-~]{1,4096}")
_NETWORK = ("httpx", "httpx2", "httpcore", "requests", "urllib3", "anyio", "ssl", "socket")


@dataclass(frozen=True)
class Revision:
    """A commit of a repository. `sha256` holds digests of the large files, where the hub knows them."""

    commit: str
    entries: tuple[Entry, ...]
    sha256: Mapping[str, str]


class Hub:
    """One repository at one revision, as `source` of a request names it."""

    def __init__(self, source: Mapping[str, Any]) -> None:
        self.repo = str(source["repo"])
        self.revision = str(source["revision"])
        self._token = os.environ.get("HF_TOKEN", "").strip() or None
        if self._token is not None and not _TOKEN.fullmatch(self._token):
            # As a header it would be refused by a library, with the token in its message.
            raise Failure(
                "ModelAccessDenied",
                "the token has line breaks, spaces or characters that no token has. Put the token alone into the Secret of "
                "source.huggingFace.tokenSecretRef",
            )
        if not _REPO.fullmatch(self.repo) or ".." in self.repo or "--" in self.repo:
            raise Failure("ModelNotFound", f"{self.repo!a} is not a name of a repository. Set source.huggingFace.repo to owner/name")
        if not self.revision.isprintable() or not 0 < len(self.revision) <= 256:
            raise Failure("RevisionNotFound", f"{self.revision!a} is not a revision. Correct source.huggingFace.revision")
        from huggingface_hub import HfApi, constants  # noqa: PLC0415  absent in the runtime image

        self.endpoint = str(source.get("endpoint") or constants.ENDPOINT).rstrip("/")
        if not re.match(r"https?://", self.endpoint):
            raise Failure(
                "HubUnreachable", f"{self.endpoint!r} is not an address that begins with https://. Correct source.huggingFace.endpoint"
            )
        # token=False: none at all, also not one that the library might find in a file.
        self._api = HfApi(endpoint=self.endpoint, token=self._token or False, library_name="trtllm-operator")

    @property
    def where(self) -> str:
        """The repository, for messages."""
        return f"{self.repo} at revision {self.revision}"

    def look_up(self) -> Revision:
        """The commit and the files of the revision.

        Raises:
            Failure: ModelAccessDenied, ModelNotFound, RevisionNotFound, HubUnreachable, InvalidModel.
        """
        with self._errors(), self._protocol():
            info = self._api.model_info(self.repo, revision=self.revision, files_metadata=True, timeout=60)
        commit = str(info.sha or "")
        if not _COMMIT.fullmatch(commit):
            raise Failure("HubUnreachable", f"{self.endpoint} gives no commit for {self.where}, so it does not speak the Hub's protocol")
        siblings = info.siblings or ()
        files.check_tree([str(sibling.rfilename) for sibling in siblings], self.where)
        entries, digests = [], {}
        for sibling in siblings:
            size = sibling.size if sibling.size is not None else (sibling.lfs.size if sibling.lfs else None)
            if not isinstance(size, int) or size < 0:
                raise Failure("HubUnreachable", f"{self.endpoint} gives no size for {sibling.rfilename} of {self.where}")
            entries.append(Entry(sibling.rfilename, size))
            if sibling.lfs and sibling.lfs.sha256:
                digests[sibling.rfilename] = sibling.lfs.sha256
        return Revision(commit, tuple(sorted(entries)), digests)

    @contextlib.contextmanager
    def _protocol(self) -> Iterator[None]:
        """For what reads an answer that may be anything."""
        try:
            yield
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            if type(error).__module__.split(".", 1)[0] == "huggingface_hub":
                raise
            raise Failure(
                "HubUnreachable",
                f"what {self.endpoint} answers about {self.where} can't be understood ({type(error).__name__}), so it does not speak the "
                "Hub's protocol. Correct source.huggingFace.endpoint",
            ) from error

    def config(self, revision: Revision) -> dict[str, Any]:
        """config.json of a commit, through a directory that is removed again.

        Raises:
            Failure: as `look_up`.
        """
        size = next(entry.size for entry in revision.entries if entry.path == "config.json")
        if size > model.CONFIG_LIMIT:
            raise Failure("InvalidModel", f"config.json of {self.where} is larger than 1 MiB, so it is no model configuration")
        with tempfile.TemporaryDirectory() as directory:
            with self._errors():
                path = self._api.hf_hub_download(self.repo, "config.json", revision=revision.commit, local_dir=directory)
            return model.read_config(Path(path), self.where)

    def download(self, revision: Revision, chosen: list[Entry], directory: Path, parts: Path) -> dict[str, Hashed]:
        """Bring files to a directory; one that is there already is not fetched again, and one that was begun is continued.

        Args:
            revision: the commit.
            chosen: files of it.
            directory: where they go.
            parts: directory for what is not finished, on the same volume.

        Returns:
            What was hashed on the way, by path.

        Raises:
            Failure: as `look_up`.
        """
        large = self.resumable(revision, chosen)
        names = [glob.escape(entry.path) for entry in chosen if entry.path not in large]  # exactly those, whatever the hub lists now
        with self._errors():
            if names:
                self._api.snapshot_download(self.repo, revision=revision.commit, local_dir=directory, allow_patterns=names, max_workers=4)
            return download.fetch_all(directory, parts, list(large.values()), lambda path: self._locate(revision, path))

    def resumable(self, revision: Revision, chosen: list[Entry]) -> dict[str, tuple[Entry, str]]:
        """Files that can be continued, with their SHA-256: only where that is known, a wrong part is noticed in the end."""
        from huggingface_hub import constants  # noqa: PLC0415

        return {
            entry.path: (entry, revision.sha256[entry.path])
            for entry in chosen
            # The Hub gives larger ones by a protocol of its own only, which the library knows.
            if entry.path in revision.sha256 and entry.size <= constants.MAX_HTTP_DOWNLOAD_SIZE
        }

    def _locate(self, revision: Revision, path: str) -> Address:
        from huggingface_hub import hf_hub_url  # noqa: PLC0415

        url = hf_hub_url(self.repo, path, revision=revision.commit, endpoint=self.endpoint)
        place = self._api.get_hf_file_metadata(url=url).location
        ours = urlsplit(place)[:2] == urlsplit(self.endpoint)[:2]  # elsewhere the address itself is the permission
        return Address(place, {"Authorization": f"Bearer {self._token}"} if ours and self._token else {})

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        from huggingface_hub import errors  # noqa: PLC0415

        try:
            yield
        except errors.GatedRepoError as error:
            raise self._denied("is gated") from error
        except errors.RepositoryNotFoundError as error:
            raise Failure("ModelNotFound", self._not_found()) from error
        except errors.RevisionNotFoundError as error:
            raise Failure(
                "RevisionNotFound", f"{self.repo} on {self.endpoint} has no revision {self.revision}. Correct source.huggingFace.revision"
            ) from error
        except errors.EntryNotFoundError as error:
            if isinstance(error, errors.LocalEntryNotFoundError):  # the library looked on the disk because the hub did not answer
                raise self._unreachable(error.__cause__ or error) from error
            raise Failure(
                "SourceChanged", f"a file of {self.where} on {self.endpoint} is gone. Try again, or correct the revision"
            ) from error
        except errors.HfHubHTTPError as error:
            status = getattr(error.response, "status_code", 0)
            if status in {401, 403, 451}:
                raise self._denied(f"answers {status}") from error
            raise self._unreachable(error, status) from error
        except Exception as error:
            root = type(error).__module__.split(".", 1)[0]
            if is_full(error) is None and (
                root in _NETWORK or isinstance(error, ConnectionError | TimeoutError | errors.FileMetadataError)
            ):
                raise self._unreachable(error) from error
            raise

    def _denied(self, what: str) -> Failure:
        if self._token is None:
            step = (
                "No token was given: accept the model's terms on its page, make a Secret with a token that may read it, "
                "and name it in source.huggingFace.tokenSecretRef"
            )
        else:
            step = (
                "The token that was given does not open it: accept the model's terms on its page with the token's account, "
                "or put a valid token that may read it into the Secret of source.huggingFace.tokenSecretRef"
            )
        return Failure("ModelAccessDenied", f"{self.where} on {self.endpoint} {what}. {step}")

    def _not_found(self) -> str:
        token = "that the token may not read it" if self._token else "that it is private: then set source.huggingFace.tokenSecretRef"
        return f"{self.repo} is not on {self.endpoint}. Correct source.huggingFace.repo; it may also be {token}"

    def _unreachable(self, error: BaseException, status: int = 0) -> Failure:
        text = str(error).strip() or type(error).__name__
        said = f"answers {status}" if status else f"can't be reached: {text.splitlines()[0][:300]}"
        return Failure(
            "HubUnreachable", f"the hub {self.endpoint} {said} ({self.where}). Check network policy, proxy and source.huggingFace.endpoint"
        )
