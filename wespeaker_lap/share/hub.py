"""Packed models on the Hugging Face hub: `hf://org/name` (extra `[hub]`).

What was fetched once is found again without a network, in huggingface_hub's own cache.
"""

from pathlib import Path
from types import ModuleType

from wespeaker_lap.share import bundle

PREFIX = "hf://"


def fetch_bundle(location: str) -> Path:
    """Fetch a packed model, or find it in the cache.

    Only the files that its manifest lists are fetched, all of one commit.

    Args:
        location: `hf://org/name` or `hf://org/name@revision`.

    Returns:
        Its folder; `bundle.check_bundle` has not yet looked at it.

    Raises:
        ImportError: huggingface_hub is not installed.
        FileNotFoundError: the model is neither in reach nor in the cache.
        ValueError: no such kind of address, or it is no packed model.
    """
    huggingface_hub = _import_hub(location)
    repo, revision = split_location(location)
    manifest = Path(_fetch(huggingface_hub, location, repo, bundle.MANIFEST, revision))
    commit = manifest.parent.name  # later files are of the same one, whatever is pushed meanwhile
    for name in bundle.read_manifest(manifest)["files"]:
        _fetch(huggingface_hub, location, repo, name, commit)
    return manifest.parent


def push_bundle(directory: str | Path, location: str, private: bool = False) -> str:
    """Upload a packed model; the repository is made where there is none.

    The account is that of `hf auth login` or of the variable HF_TOKEN.

    Args:
        directory: that `pack` wrote; it is checked first.
        location: `hf://org/name`.
        private: for a repository that is new.

    Returns:
        Address of the commit.

    Raises:
        ImportError: huggingface_hub is not installed.
        FileNotFoundError, ValueError: no whole packed model, or no such kind of address.
        OSError: the hub is out of reach or refuses.
    """
    huggingface_hub, directory = _import_hub(location), Path(directory)
    repo, revision = split_location(location)
    names = list(bundle.check_bundle(directory)["files"])
    api = huggingface_hub.HfApi()
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        operations = [huggingface_hub.CommitOperationAdd(name, directory / name)
                      for name in (*names, bundle.MANIFEST)]
        done = api.create_commit(repo, operations, commit_message="Packed model",
                                 revision=revision)
    except _hub_errors(huggingface_hub) as error:
        raise OSError(f"{location}: not uploaded ({_first_line(error)}); check the name, the "
                      f"network, and that you are logged in (hf auth login or HF_TOKEN)") from error
    return str(done.commit_url)


def split_location(location: str) -> tuple[str, str | None]:
    """Repository and revision of an address.

    Raises:
        ValueError: it is of another form.

    >>> split_location("hf://org/name@v1")
    ('org/name', 'v1')
    >>> split_location("hf://org/name")
    ('org/name', None)
    """
    repo, _, revision = location.removeprefix(PREFIX).partition("@")
    if not location.startswith(PREFIX) or repo.count("/") != 1 or not all(repo.split("/")):
        raise ValueError(f"{location}: want {PREFIX}org/name or {PREFIX}org/name@revision")
    return repo, revision or None


def _import_hub(location: str) -> ModuleType:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise ImportError(f"{location} needs the package huggingface_hub: "
                          f"pip install 'wespeaker-lap[hub]'") from error
    return huggingface_hub


def _hub_errors(huggingface_hub: ModuleType) -> tuple[type[Exception], ...]:
    """Errors of the hub and of the network below it; the latter's kind depends on the version."""
    errors = huggingface_hub.errors
    return OSError, errors.HFValidationError, getattr(errors, "HTTPError", OSError)


def _fetch(huggingface_hub: ModuleType, location: str, repo: str, name: str,
           revision: str | None) -> str:
    try:
        return huggingface_hub.hf_hub_download(repo, name, revision=revision)
    except (*_hub_errors(huggingface_hub), huggingface_hub.errors.EntryNotFoundError) as error:
        is_out_of_reach = isinstance(error, huggingface_hub.errors.LocalEntryNotFoundError)
        if isinstance(error, huggingface_hub.errors.EntryNotFoundError) and not is_out_of_reach:
            raise FileNotFoundError(f"{location}: no {name} there, so it is no packed model of "
                                    f"wespeaker_lap, or not a whole one") from error
        raise FileNotFoundError(
            f"{location}: {name} is neither in reach nor in the cache ({_first_line(error)}). "
            f"Check the name and the network; without one, fetch the repository's files into a "
            f"folder on another machine and give that folder") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
