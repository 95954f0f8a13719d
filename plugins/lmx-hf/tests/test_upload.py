"""Models onto the hub on loopback."""

import json

import mlx.core as mx
import pytest
from click.testing import CliRunner
from huggingface_hub import ModelCard

from lmx_core import LanguageModel, load_model, make_config
from lmx_core.checkpoint import save_model
from lmx_core.errors import LmxError
from lmx_core.model import flat_parameters
from lmx_hf.cli.upload import upload as verb
from lmx_hf.hub import fetch
from lmx_hf.hub.card import model_card
from lmx_hf.hub.upload import upload

from .hub import TOKEN, cut, status

pytestmark = [
    pytest.mark.once,
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),
]  # huggingface_hub sends files so

LOST = cut(10)
LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "_name_or_path": "someone/llama"}
PACKED = {**LLAMA, "quantization": {"group_size": 32, "bits": 4, "mode": "affine"}}


@pytest.fixture
def token(monkeypatch, hub):
    monkeypatch.setenv("HF_TOKEN", TOKEN)


@pytest.fixture
def folder(tmp_path):
    """A folder as lmx saves it, with a tokenizer, and files that are nobody's business."""
    folder = tmp_path / "tiny"
    save_model(LanguageModel(make_config("llama", "tiny")), folder)
    (folder / "tokenizer.json").write_text("{}")
    (folder / ".env").write_text("SECRET=1")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "notes").write_text("x")
    return folder


def of_config(tmp_path, config, written_by, **tensors):
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    mx.save_safetensors(str(folder / "model.safetensors"), tensors, {"format": written_by})
    return folder


def test_there_and_back(hub, token, folder):
    """What is uploaded is fetched again with the same bytes, and is the same model; a card is with it."""
    url = upload(folder, "me/tiny")

    assert url == f"{hub.url}/me/tiny"
    repository = hub.repositories["me/tiny"]
    sent = {"config.json", "model.safetensors", "tokenizer.json", "README.md"}
    assert set(repository.files) == sent | {".gitattributes"}
    assert not repository.private
    assert len(repository.commits) == 2, "one when it is made, one of the upload"
    back = fetch("me/tiny")
    assert {file.name: file.read_bytes() for file in back.iterdir()} == {
        name: (folder / name).read_bytes() for name in sent - {"README.md"}
    }
    ours, theirs = (flat_parameters(load_model(each)) for each in (folder, back))
    assert all(mx.array_equal(ours[name], theirs[name]) for name in ours)
    assert ModelCard(repository.files["README.md"].decode()).data.library_name == "lmx"


def test_private_and_the_message(hub, token, folder):
    """And a name alone, which is put under the account's."""
    assert upload(folder, "tiny", private=True, message="First words") == f"{hub.url}/me/tiny"

    assert hub.repositories["me/tiny"].private
    (commit,) = hub.asked("POST .*/commit/")
    assert json.loads(commit.body.splitlines()[0])["value"]["summary"] == "First words"


def test_a_card_that_is_there_stays(hub, token, folder):
    """In the folder or in the repository; and there is none where none is wanted."""
    upload(folder, "me/bare", card=False)
    assert "README.md" not in hub.repositories["me/bare"].files
    hub.put("me/edited", {"README.md": b"# By hand"})
    upload(folder, "me/edited")
    assert hub.repositories["me/edited"].files["README.md"] == b"# By hand"
    (folder / "README.md").write_text("# Mine")
    upload(folder, "me/tiny")
    assert hub.repositories["me/tiny"].files["README.md"] == b"# Mine"


def test_once_more(hub, token, folder):
    """A second upload changes what changed and keeps what else is there."""
    upload(folder, "me/tiny")
    (folder / "tokenizer.json").write_text('{"new": 1}')
    (folder / "README.md").unlink()
    hub.put("me/tiny", {**hub.repositories["me/tiny"].files, "notes.txt": b"theirs"})

    upload(folder, "me/tiny")

    files = hub.repositories["me/tiny"].files
    assert files["tokenizer.json"] == b'{"new": 1}'
    assert files["notes.txt"] == b"theirs"


# --------------------------------------------------------------------------------------------------------------- errors


def refused(*words, folder, repo="me/tiny"):
    with pytest.raises(LmxError) as caught:
        upload(folder, repo)
    for word in words:
        assert word in str(caught.value), str(caught.value)
    assert TOKEN not in str(caught.value)


def test_who_may_write(hub, folder, monkeypatch):
    """Without a token nothing is asked; a wrong one, and one without rights, are told apart. None is printed."""
    refused("hf auth login", "HF_TOKEN", "write access", folder=folder)
    assert not hub.requests
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    refused("does not accept your token", "hf auth login", folder=folder)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.may_write = False
    refused("forbids", "under the namespace", "write access", folder=folder)
    assert not hub.repositories


def test_what_is_no_model(hub, token, folder, tmp_path):
    """A folder that is not there, without a config, without weights, with a damaged file, with a pickle."""
    refused("there is no folder", folder=tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    refused("config.json", folder=tmp_path / "empty")
    (tmp_path / "empty" / "config.json").write_text("{}")
    refused("no weights", folder=tmp_path / "empty")
    (folder / "more").mkdir()
    (folder / "more" / "optimizer.pt").write_bytes(b"x")
    refused("pickles", "more/optimizer.pt", "Remove them", folder=folder)
    (folder / "more" / "optimizer.pt").unlink()
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    refused("model.safetensors", folder=folder)
    assert not hub.requests


@pytest.mark.parametrize(
    ("about", "change", "words"),
    [
        ("PUT /store/", status(400), ("refuses", "status 400")),
        ("PUT /store/", status(503), ("fails for me/tiny with status 503", "Try again later")),
        ("POST .*/commit/", status(500), ("fails for me/tiny with status 500",)),
        ("POST .*/commit/", LOST, ("connection to the hub", "run it again")),
        ("POST .*/preupload/", status(429), ("too many requests",)),
    ],
    ids=["bad store", "store down", "commit", "cut", "busy"],
)
def test_what_breaks_on_the_way(hub, token, folder, about, change, words):
    """Nothing half is in the repository, and the next call puts all of it there."""
    hub.fault(about, change, times=20)

    refused(*words, folder=folder)

    everything = {".gitattributes", "config.json", "model.safetensors", "tokenizer.json", "README.md"}
    lost = change is LOST  # the commit is made, its answer does not arrive
    assert set(hub.repositories["me/tiny"].files) == (everything if lost else {".gitattributes"})
    hub.faults.clear()
    upload(folder, "me/tiny")
    assert hub.repositories["me/tiny"].files["model.safetensors"] == (folder / "model.safetensors").read_bytes()


def test_the_hub_is_not_there(hub, token, folder):
    hub.close()

    refused("connection to the hub", hub.url, folder=folder)


def test_the_verb(hub, token, folder):
    """`lmx upload FOLDER REPO --private --message` prints the address."""
    done = CliRunner().invoke(verb, [str(folder), "me/tiny", "--private", "--message", "Words"])

    assert done.exit_code == 0, done.output
    assert done.stdout == f"{hub.url}/me/tiny\n"
    assert hub.repositories["me/tiny"].private
    assert not done.stderr, "there is no terminal for bars"


# ---------------------------------------------------------------------------------------------------------------- cards


def test_the_card_of_a_model_of_ours(folder):
    """Only lmx reads it, and says so."""
    card = ModelCard(model_card(folder, "me/tiny"))

    assert card.data.to_dict() == {"library_name": "lmx", "pipeline_tag": "text-generation", "tags": ["lmx"]}
    assert "lmx generate me/tiny" in card.text
    assert "transformers" not in card.text
    assert "mlx_lm" not in card.text
    assert "without a tokenizer" not in card.text


@pytest.mark.parametrize(("written_by", "library"), [("pt", "transformers"), ("mlx", "mlx")])
def test_the_card_of_a_dense_model(tmp_path, written_by, library):
    """Each of the three reads it; the config says what it was made from."""
    folder = of_config(tmp_path, LLAMA, written_by, w=mx.zeros((1000, 1200)), b=mx.zeros(34_000))

    card = ModelCard(model_card(folder, "me/tiny"))

    assert card.data.library_name == library
    assert card.data.base_model == "someone/llama"
    assert "base_model_relation" not in card.data.to_dict()
    assert (
        "1.23 million parameters, of type `llama`. Made from `someone/llama`. It comes without a tokenizer."
        in card.text
    )
    for use in ("lmx generate me/tiny", 'from_pretrained("me/tiny")', "mlx_lm.generate --model me/tiny"):
        assert use in card.text


def test_the_card_of_a_quantised_model(tmp_path):
    """Its parameters are those that the packed words stand for, and it is a quantised version of its base."""
    weight, scales, biases = mx.quantize(mx.zeros((1000, 1024)), group_size=32, bits=4)
    packed = {"layer.weight": weight, "layer.scales": scales, "layer.biases": biases}
    folder = of_config(tmp_path, PACKED, "mlx", **packed, norm=mx.zeros(6000))

    card = ModelCard(model_card(folder, "me/tiny", base_model="another/llama"))

    assert card.data.library_name == "mlx"
    assert card.data.tags == ["lmx", "mlx", "4-bit"]
    assert card.data.base_model == "another/llama"
    assert card.data.to_dict()["base_model_relation"] == "quantized"
    assert "1.03 million parameters" in card.text
    assert "quantised to 4 bits in groups of 32 (affine)" in card.text
    assert "from_pretrained" not in card.text


@pytest.mark.parametrize("name", ["/home/me/llama", "./llama", "llama", "", None, "me/tiny", "C:\\models/llama"])
def test_where_a_model_lay_is_no_base(tmp_path, name):
    """A path of its author's disk, and its own name, are not what it was made from."""
    folder = of_config(tmp_path, {**LLAMA, "_name_or_path": name}, "pt", w=mx.zeros(3))

    assert "base_model" not in ModelCard(model_card(folder, "me/tiny")).data.to_dict()
