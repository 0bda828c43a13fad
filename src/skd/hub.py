"""Pushing a finished student to the Hugging Face Hub. The token comes from the environment variable HF_TOKEN only."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skd.config.credentials import hidden
from skd.errors import Problem, RemoteError
from skd.model_files import reason

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from skd.config import HubConfig

__all__ = ["push", "require_access"]

_CODE = "SKD-R04"


def require_access(hub: HubConfig) -> str:
    """Who the token belongs to, once the Hub says that it may write to the owner of ``hub.repo``.

    Raises RemoteError (SKD-R04) without a token, for one that may only read or belongs to somebody else, and when the
    Hub does not answer. Nothing is made there.
    """
    try:
        user = _client(hub).whoami()
    except RemoteError:
        raise
    except Exception as error:  # the client and the network below it raise many kinds
        raise _refusal(
            hub, f"the Hub does not take the token: {_said(error)}", "check HF_TOKEN and the network"
        ) from error
    owner, name = hub.repo.split("/")[0], str(user.get("name"))
    if owner not in {name, *(str(group.get("name")) for group in user.get("orgs") or ())}:
        raise _refusal(hub, f"the token is of {name}, who is not in {owner}", f"write hub.repo: {name}/...")
    if _role(user) == "read":
        raise _refusal(hub, "the token may only read", "make one that may write, and put it into HF_TOKEN")
    return name


def push(directory: Path, hub: HubConfig, message: str, again: str) -> str:
    """Upload ``directory`` as one commit, into a repository that is made where there is none; returns its address.

    ``again`` is the command that tries once more. Raises RemoteError (SKD-R04) when it fails; the directory stays as
    it is.
    """
    try:
        client = _client(hub)
        client.create_repo(hub.repo, private=hub.private, exist_ok=True)
        if hub.revision is not None:
            client.create_branch(hub.repo, branch=hub.revision, exist_ok=True)
        done = client.upload_folder(
            repo_id=hub.repo, folder_path=directory, revision=hub.revision, commit_message=message
        )
    except Exception as error:  # the client and the network below it raise many kinds
        found = f"the student in {directory} is whole, and could not be pushed: {_said(error)}"
        raise _refusal(hub, found, f"push it again by: {again}") from error
    return str(done.commit_url)


def _client(hub: HubConfig) -> HfApi:
    from huggingface_hub import HfApi

    token = os.environ.get("HF_TOKEN")
    if not token:
        raise _refusal(hub, "the environment variable HF_TOKEN is not set", "set it to a token that may write")
    return HfApi(token=token, library_name="skd")


def _role(user: dict[str, Any]) -> str | None:
    """read, write or fineGrained; None where the Hub does not say."""
    token = (user.get("auth") or {}).get("accessToken") or {}
    return token.get("role")


def _said(error: Exception) -> str:
    if isinstance(error, RemoteError):
        return error.problems[0].found
    cause = error.__cause__
    return hidden(f"{reason(error)} ({reason(cause)})" if isinstance(cause, Exception) else reason(error))


def _refusal(hub: HubConfig, found: str, remedy: str) -> RemoteError:
    return RemoteError(Problem(_CODE, f"hub {hub.repo}", found, remedy))
