"""The hub on loopback: what is fetched, what is said when something goes wrong, and what is left afterwards."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from huggingface_hub import close_session, constants, file_download

from lmx_hf.hub import ADAPTER, HubError, Kind, fetch, sums

from .hub import TOKEN, Hub, cut, flipped, html, short, status, sum_of

pytestmark = pytest.mark.once

WEIGHTS = bytes(range(256)) * 20
SMALL = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b'{"model": {}}',
    "chat_template.jinja": b"{{ messages }}",
    "generation_config.json": b"{}",
}
MODEL = {**SMALL, "model.safetensors": WEIGHTS}
SHARDS = {f"model-0000{n}-of-00002.safetensors": bytes([n]) * 3000 for n in (1, 2)}
INDEX = {"model.safetensors.index.json": json.dumps({"weight_map": {f"w{n}": n for n in SHARDS}}).encode()}
FILE = r"GET .*/resolve/.*/model\.safetensors$"


def cached():
    """Blobs, and what is left of downloads, in bytes."""
    return {file.name: file.stat().st_size for file in blobs().iterdir()} if blobs().exists() else {}


def blobs():
    return next(path_of_cache().glob("models--*/blobs"), path_of_cache() / "none")


def path_of_cache():
    return Path(constants.HF_HUB_CACHE)


def content(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def fails(*words, repo="me/model", **options):
    """`fetch` says these words; nothing half is left where a model would be read."""
    with pytest.raises(HubError) as caught:
        fetch(repo, **options)
    for word in words:
        assert word in str(caught.value), str(caught.value)
    assert TOKEN not in str(caught.value)
    no_half_file()
    return str(caught.value)


def no_half_file():
    for file in path_of_cache().glob("models--*/snapshots/*/*"):
        assert file.read_bytes() in [*MODEL.values(), *SHARDS.values(), *INDEX.values()], file


# ------------------------------------------------------------------------------------------------------- what is fetched


def test_a_folder_is_itself(tmp_path):
    """A local folder is returned as it is, whatever it is called, and the hub is not asked."""
    assert fetch(tmp_path) == tmp_path
    assert fetch(str(tmp_path)) == tmp_path


@pytest.mark.parametrize(
    "place", ["./nothing", "../nothing", "/nothing/here", "~/nothing-here", "a/b/c", "models/", "a\\b"]
)
def test_a_path_is_no_repository(hub, place):
    """What looks like a path and is not there is said to be no folder; the hub is not asked."""
    fails("there is no folder", "owner/name", repo=place)
    assert not hub.requests


def test_local_mistakes(hub, tmp_path):
    (tmp_path / "file").write_text("x")
    fails("is a file", repo=str(tmp_path / "file"))
    fails("there is no folder", repo=tmp_path / "missing")
    fails("has no revision 'v1'", repo=tmp_path, revision="v1")
    fails("no name of a repository", repo="what is this")


def test_what_a_model_needs_is_fetched(hub):
    """Configs, tokenizer and weights; nothing else, and nothing twice."""
    others = {"README.md": b"x", "pytorch_model.bin": WEIGHTS, "original/model.safetensors": WEIGHTS, "train.py": b"x"}
    hub.put("me/model", {**MODEL, **others, "consolidated.safetensors": WEIGHTS})

    folder = fetch("me/model")

    assert content(folder) == MODEL
    assert len(hub.asked("GET .*/resolve/")) == len(MODEL)
    assert fetch("me/model") == folder
    assert len(hub.asked("GET .*/resolve/")) == len(MODEL)


def test_an_index_names_the_shards(hub):
    """The shards of the index are fetched; the same weights under other names are not."""
    more = {"consolidated.safetensors": WEIGHTS, "model.fp32.safetensors": WEIGHTS, "model.safetensors": WEIGHTS}
    hub.put("me/model", {**SMALL, **INDEX, **SHARDS, **more})

    assert content(fetch("me/model")) == {**SMALL, **INDEX, **SHARDS}


def test_revisions(hub):
    """A branch follows its commits, a commit stays what it is."""
    first = hub.put("me/model", MODEL).head
    old = fetch("me/model")
    hub.put("me/model", {**MODEL, "config.json": b'{"model_type": "gpt2"}'})

    assert content(fetch("me/model"))["config.json"] == b'{"model_type": "gpt2"}'
    assert fetch("me/model", first) == old
    assert content(old) == MODEL


def test_adapters(hub):
    """Of PEFT and of mlx-lm, where asked for one; a model is not taken for one, nor one for a model."""
    peft = {"adapter_config.json": b"{}", "adapter_model.safetensors": WEIGHTS}
    mlx = {"adapter_config.json": b"{}", "adapters.safetensors": WEIGHTS}
    hub.put("me/peft", {**peft, "adapter_model.bin": WEIGHTS})
    hub.put("me/mlx", {**mlx, "0000100_adapters.safetensors": WEIGHTS})
    hub.put("me/model", MODEL)

    assert content(fetch("me/peft", kind=ADAPTER)) == peft
    assert content(fetch("me/mlx", kind=ADAPTER)) == mlx
    with pytest.raises(HubError, match="is an adapter and no model"):
        fetch("me/peft")
    with pytest.raises(HubError, match=r"has no adapter_config\.json"):
        fetch("me/model", kind=ADAPTER)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            {**SMALL, "pytorch_model.bin": WEIGHTS},
            ("pytorch_model.bin", "runs whatever code", "safe_serialization=True"),
        ),
        ({**SMALL, "consolidated.00.pth": WEIGHTS}, ("consolidated.00.pth", "runs whatever code")),
        ({**SMALL, "model-q4.gguf": WEIGHTS}, ("model-q4.gguf", "does not read")),
        ({**SMALL, "notes.txt": WEIGHTS}, ("no weights", "chat_template.jinja")),
        ({"model.safetensors": WEIGHTS}, ("has no config.json",)),
        ({**SMALL, **INDEX, "model-00001-of-00002.safetensors": b"\1" * 3000}, ("lacks model-00002-of-00002",)),
    ],
    ids=["bin", "pth", "gguf", "none", "no config", "no shard"],
)
def test_what_is_refused(hub, files, words):
    """Repositories that no model is in are refused, before anything large is fetched."""
    hub.put("me/model", files)

    fails(*words)

    assert not hub.asked(r"GET .*\.(bin|pth|gguf|txt|safetensors)$")


@pytest.mark.parametrize("name", ["../../../evil.safetensors", "/tmp/evil.safetensors", "evil.py"])
def test_an_index_stays_in_its_folder(hub, tmp_path, name):
    """An index that names files elsewhere is refused."""
    index = json.dumps({"weight_map": {"w": name}}).encode()
    hub.put("me/model", {**SMALL, "model.safetensors.index.json": index, name: WEIGHTS})

    with pytest.raises(HubError, match="no shard beside it"):
        fetch("me/model")

    assert not [*tmp_path.rglob("evil*")]


def test_a_listing_stays_in_its_folder(hub, tmp_path):
    """So is a listing that does."""
    hub.put("me/model", {**SMALL, "../../../evil.safetensors": WEIGHTS})

    with pytest.raises(HubError, match=r"me/model is refused: .*evil\.safetensors"):
        fetch("me/model", kind=Kind("model", "config.json", ("a.safetensors", "*evil.safetensors")))

    assert not [*tmp_path.rglob("evil*")]


# ----------------------------------------------------------------------------------------------------- who may read what


def test_repositories_that_are_not_there(hub, monkeypatch):
    """Missing and private ones look alike, with and without a token; with the right one it is there."""
    hub.put("me/private", MODEL, private=True)

    for repo in ("me/missing", "me/private"):
        fails(f"no repository {repo}", "hf auth login", "HF_TOKEN", "spelling", repo=repo)
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    fails("no repository me/private", "hf auth login", repo="me/private")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert content(fetch("me/private")) == MODEL


def test_gated_repositories(hub, monkeypatch):
    """Without a token, with that of someone else, with the right one."""
    hub.put("me/model", MODEL, gated=True)

    fails("is gated", "Accept its terms at", f"{hub.url}/me/model", "hf auth login")
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    fails("is gated", "your token does not open it", "Accept its terms at")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert content(fetch("me/model")) == MODEL


def test_a_token_that_the_hub_does_not_know(hub, monkeypatch):
    hub.put("me/model", MODEL)
    monkeypatch.setenv("HF_TOKEN", "hf_outdated")
    hub.fault("GET /api/", status(401, X_Error_Message="Invalid credentials in Authorization header"))

    fails("does not accept your token", "Invalid credentials", "hf auth login")


def test_a_revision_that_is_not_there(hub):
    hub.put("me/model", MODEL)

    fails("no revision 'v2'", "leave it out", revision="v2")
    assert content(fetch("me/model")) == MODEL


# ----------------------------------------------------------------------------------------------------- without the hub


@pytest.fixture(params=["unreachable", "offline"])
def without(request, hub, monkeypatch):
    """The hub goes away, or HF_HUB_OFFLINE says not to ask; returns the word for it."""

    def go():
        if request.param == "offline":
            monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
            return "HF_HUB_OFFLINE is set"
        hub.close()
        close_session()
        return hub.url

    return go


def test_without_the_hub_the_cache_serves(hub, without):
    """What was fetched once loads without a connection, by branch and by commit."""
    commit = hub.put("me/model", MODEL).head
    folder = fetch("me/model")
    without()

    assert fetch("me/model") == fetch("me/model", commit) == folder


def test_without_the_hub_and_the_cache(hub, without):
    hub.put("me/model", MODEL)

    fails(without(), "not, or not wholly, in the cache", str(path_of_cache()))


def test_a_part_of_a_model_is_none(hub, without, monkeypatch):
    """Where a download stopped between two shards, the cache alone is not read."""
    hub.put("me/model", {**SMALL, **INDEX, **SHARDS})
    hub.fault("GET .*00002-of-00002", status(500))
    fails("fails for me/model with status 500")
    words = without()

    fails(words, "only a part of me/model", "model-00002-of-00002.safetensors is missing")


def test_a_model_without_its_weights_is_none(hub, without):
    hub.put("me/model", MODEL)
    hub.fault(FILE, status(500))
    fails("fails for me/model with status 500")

    fails(without(), "no weights of me/model", "Fetch it once")


# ------------------------------------------------------------------------------------------------ what breaks on the way


def recovers(hub):
    """The next call has all of it, and no leftover."""
    assert content(fetch("me/model")) == MODEL
    assert not [name for name in cached() if "incomplete" in name]


def test_a_cut_connection_is_resumed(hub, waits):
    """What came before the cut is not sent again."""
    hub.put("me/model", MODEL)
    hub.fault(FILE, cut(2500))

    recovers(hub)

    first, second = hub.asked(FILE)
    assert "range" not in first.headers
    assert int(second.headers["range"].removeprefix("bytes=").removesuffix("-")) >= 2 * constants.DOWNLOAD_CHUNK_SIZE
    assert waits == [1]


def test_a_connection_that_is_cut_again_and_again(hub):
    hub.put("me/model", MODEL)
    hub.fault(FILE, cut(100), times=20)

    fails("connection to the hub", "failed at me/model", "run it again")
    hub.faults.clear()
    recovers(hub)


@pytest.mark.parametrize("change", [short, html], ids=["short", "html"])
def test_a_wrong_length(hub, change):
    hub.put("me/model", MODEL)
    hub.fault(FILE, change)

    fails("wrong length", "not kept", "login page", "should be of size 5120")
    assert sum(map(len, MODEL.values())) - len(WEIGHTS) == sum(cached().values())
    recovers(hub)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_wrong_bytes(hub, name):
    """The right length with wrong bytes is found by the checksum, removed, and fetched anew."""
    hub.put("me/model", MODEL)
    hub.fault(f"GET .*/resolve/.*/{name}", flipped)

    fails(f"{name} of me/model has other bytes", "removed from the cache", "Run it again")
    recovers(hub)


def test_a_blob_that_was_damaged_in_the_cache(hub, without):
    """It is found at the next call, with and without a connection."""
    hub.put("me/model", MODEL)
    blob = (fetch("me/model") / "model.safetensors").resolve()
    blob.write_bytes(b"\1" + WEIGHTS[1:])

    words = without()

    fails("model.safetensors of me/model has other bytes")
    fails(words, "no weights of me/model")


def test_a_damaged_blob_is_fetched_anew(hub):
    hub.put("me/model", MODEL)
    (fetch("me/model") / "model.safetensors").resolve().write_bytes(b"\1" + WEIGHTS[1:])

    fails("has other bytes")
    recovers(hub)


def test_files_are_hashed_once(hub, monkeypatch):
    """A checksum that was right is remembered; not where nothing can be remembered."""
    hub.put("me/model", MODEL)
    hashed = []
    real = sums._sum
    monkeypatch.setattr(sums, "_sum", lambda file, *rest: hashed.append(file.name) or real(file, *rest))

    fetch("me/model")
    assert sorted(hashed) == sorted(MODEL)
    fetch("me/model")
    assert len(hashed) == len(MODEL)
    monkeypatch.setenv("LMX_CACHE", "/dev/null/nowhere")
    fetch("me/model")
    assert len(hashed) == 2 * len(MODEL)


def test_a_cache_without_links(hub, monkeypatch):
    """Where the cache's disk knows no links, the hub's listing says the checksums."""
    monkeypatch.setattr(file_download, "are_symlinks_supported", lambda *_: False)
    hub.put("me/model", MODEL)
    hub.fault(FILE, flipped)

    fails("model.safetensors of me/model has other bytes")
    assert content(fetch("me/model")) == MODEL


def test_a_store_of_blobs(tmp_path, monkeypatch):
    """A blob may be a link into a store that is named otherwise; what is damaged goes from all three."""
    monkeypatch.setenv("LMX_CACHE", str(tmp_path / "lmx"))
    for name in ("store", "blobs", "snapshot"):
        (tmp_path / name).mkdir()
    stored, snapshot = tmp_path / "store" / ("ab" * 32), tmp_path / "snapshot" / "model.safetensors"
    blob = tmp_path / "blobs" / sum_of("model.safetensors", WEIGHTS)
    blob.symlink_to(stored)
    snapshot.symlink_to(blob)
    for data, wrong in ((WEIGHTS, []), (b"\1" + WEIGHTS[1:], [snapshot])):
        stored.write_bytes(data)
        assert sums.damaged([snapshot], dict) == wrong

    assert not [file for name in ("store", "blobs", "snapshot") for file in (tmp_path / name).iterdir()]


def test_too_many_requests(hub, waits):
    """The hub says how long to wait, and is obeyed; when it never has enough, we say so."""
    hub.put("me/model", MODEL)
    hub.fault(FILE, status(429, RateLimit='"resolvers";r=0;t=7', Retry_After="7"))

    recovers(hub)
    assert 7 <= waits[0] <= 8
    hub.put("me/other", MODEL)
    hub.fault("GET .*me/other/resolve/.*/model.safetensors", status(429), times=50)
    fails("too many requests", "Wait some minutes", repo="me/other")


@pytest.mark.parametrize("code", [500, 503])
@pytest.mark.parametrize("about", [FILE, "GET /api/models/me/model"], ids=["file", "repository"])
def test_a_hub_that_fails(hub, code, about):
    hub.put("me/model", MODEL)
    hub.fault(about, status(code), times=50)

    fails(f"fails for me/model with status {code}", "Try again later")
    hub.faults.clear()
    recovers(hub)


def fill_disk(monkeypatch, after):
    real = file_download.http_get

    class Full:
        def __init__(self, file):
            self.file = file

        def write(self, data):
            if self.file.tell() + len(data) > after:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return self.file.write(data)

        def __getattr__(self, name):
            return getattr(self.file, name)

    monkeypatch.setattr(file_download, "http_get", lambda url, file, **more: real(url, Full(file), **more))


def test_a_full_disk(hub, monkeypatch):
    """How much room is needed is said, and the file that did not fit is not there."""
    hub.put("me/model", MODEL)
    with monkeypatch.context() as patch:
        fill_disk(patch, after=3000)
        fails("is full", "needs 5,120 bytes more", "HF_HOME")

    recovers(hub)


def test_a_cache_that_cannot_be_written(hub, monkeypatch, tmp_path):
    (tmp_path / "taken").write_text("")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "taken" / "cache"))
    hub.put("me/model", MODEL)

    with pytest.raises(HubError, match="taken"):
        fetch("me/model")


def test_ctrl_c_passes(hub, monkeypatch):
    """It is nobody's mistake."""

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("huggingface_hub.snapshot_download", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch("me/model")


# ----------------------------------------------------------------------------------------------------- a whole process


def process(hub, tmp_path, code):
    settings = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "LMX_CACHE": str(tmp_path / "lmx"),
        "NO_PROXY": "127.0.0.1",
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={**kept, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


FETCH = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "  # which may be ignored outside
    "from lmx_hf.hub import fetch; assert 'huggingface_hub' not in sys.modules; print(fetch('me/model'))"
)


def test_a_process_of_its_own(tmp_path):
    """The environment says where the hub and the cache are; where there is no terminal, no bar is drawn.

    Interrupted in the middle of a file, it ends, and nothing half is read by the next.
    """
    with Hub() as hub:
        hub.put("me/model", MODEL)
        going = threading.Event()
        hub.fault(FILE, cut(2500, going))
        interrupted = process(hub, tmp_path, FETCH)
        while not hub.asked(FILE) and interrupted.poll() is None:
            time.sleep(0.02)
        time.sleep(0.2)  # until it waits for the rest of the file
        interrupted.send_signal(signal.SIGINT)
        time.sleep(0.5)
        going.set()
        interrupted.communicate(timeout=30)
        assert interrupted.returncode != 0
        assert all(MODEL[file.name] == file.read_bytes() for file in (tmp_path / "home").rglob("snapshots/*/*"))

        printed, error = process(hub, tmp_path, FETCH).communicate(timeout=60)

    assert error == ""
    folder = next((tmp_path / "home").rglob("snapshots/*"))
    assert printed.strip() == str(folder)
    assert content(folder) == MODEL
