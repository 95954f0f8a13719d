"""Fixtures of several files."""

import time
import types

import pytest

from .hub import Hub


@pytest.fixture
def waits():
    """Seconds that huggingface_hub would have slept."""
    return []


@pytest.fixture
def hub(monkeypatch, tmp_path, waits):
    """A hub that huggingface_hub knows as its own, an empty cache, no token and no waiting."""
    from huggingface_hub import close_session, constants, file_download
    from huggingface_hub.utils import _http

    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("LMX_CACHE", str(tmp_path / "lmx"))
    with Hub() as hub:
        settings = {
            "ENDPOINT": hub.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
            "HF_TOKEN_PATH": str(tmp_path / "token"),
            "HF_STORED_TOKENS_PATH": str(tmp_path / "tokens"),
            "DOWNLOAD_CHUNK_SIZE": 1000,
        }
        for name, value in settings.items():
            monkeypatch.setattr(constants, name, value)
        patient = types.SimpleNamespace(**{**vars(time), "sleep": waits.append})
        monkeypatch.setattr(file_download, "time", patient)
        monkeypatch.setattr(_http, "time", patient)
        close_session()
        yield hub
    close_session()
