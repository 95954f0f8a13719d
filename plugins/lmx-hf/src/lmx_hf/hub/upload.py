"""A model's folder onto the hub."""

from pathlib import Path

from lmx_core.files import write_text
from lmx_hf.hub.card import inspected, model_card
from lmx_hf.hub.explained import LOG_IN, HubError, explained
from lmx_hf.hub.repository import matching, quiet, some
from lmx_hf.lookup import read_config
from lmx_hf.shards import PICKLES

CARD = "README.md"
HIDDEN = (".*", "*/.*")


def upload(
    folder: str | Path, repo: str, *, private: bool = False, card: bool = True, message: str | None = None
) -> str:
    """Put every file of a model's folder, but for hidden ones, into `repo` in one commit; returns the page's address.

    The repository is made if it is not there; `private` says how. Where neither the folder nor the repository has a
    README.md, `model_card` is written into the folder first, unless `card` is false. Files that the repository has and the
    folder has not stay.

    `CheckpointError` for a folder without a whole model in safetensors; `HubError` for one with pickles, and for an account
    that may not write there.
    """
    from huggingface_hub import HfApi, get_token

    folder = Path(folder).expanduser()
    _check(folder)
    with explained(repo), quiet():
        if get_token() is None:
            raise HubError(f"to write {repo} the hub must know you. {LOG_IN} to a token with write access.")
        api = HfApi(library_name="lmx")
        url = api.create_repo(repo, private=private, exist_ok=True)
        if card and not (folder / CARD).exists() and not api.file_exists(url.repo_id, CARD):
            write_text(folder / CARD, model_card(folder, url.repo_id))
        api.upload_folder(
            repo_id=url.repo_id,
            folder_path=folder,
            commit_message=message or f"Upload {folder.resolve().name} with lmx",
            ignore_patterns=[*HIDDEN],
        )
        return str(url)


def _check(folder: Path) -> None:
    """Whether it is a whole model that everyone may read."""
    if not folder.is_dir():
        raise HubError(f"there is no folder {folder}. Give the folder of a model.")
    read_config(folder)
    names = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    if pickles := matching(names, PICKLES):
        raise HubError(
            f"{folder} holds pickles ({some(pickles)}), which run code where they are read. Remove them, or give a folder "
            "with safetensors alone."
        )
    inspected(folder)  # none, or a damaged one, is found before anything is sent
