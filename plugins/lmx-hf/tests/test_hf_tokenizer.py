"""What a Hugging Face tokenizer promises beyond what every tokenizer does."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import decoders

from lmx_core import generate, load_model
from lmx_core.config import spec
from lmx_core.construct import filled
from lmx_core.data.tokenizers import UNKNOWN, as_bytes, decode, load_tokenizer, save_tokenizer, stream_text
from lmx_core.errors import ConfigError, DataError
from lmx_core.registry import registry
from lmx_core.testing import conformance
from lmx_core.train import main
from lmx_hf import HFTokenizer, HFTokenizerOptions

from .small_tokenizers import (
    BUILT,
    SPECIAL,
    TEXT,
    gpt2,
    llama2,
    llama3,
    ranks,
    sentencepiece,
    vocab_and_merges,
    words,
    written,
)

pytestmark = pytest.mark.once

HERE = Path(__file__).parent
BYTE_LEVEL = HERE / "byte_level.json"
"""Written by `gpt2().save(...)`."""
TEXTS = [
    TEXT,
    "  spaces  on all sides  ",
    "Zwölf Boxkämpfer, 日本語, 🙂👩‍👩‍👧, e\u0301\u00a0\u200b\x00",
    "<|endoftext|> <s> <unk> </s>",
    "def f(x):\n\treturn x + 1\r\n",
    "",
]
EMOJIS = ["a🙂b", "👩‍👩‍👧", "e\u0301o\u0308", "日本語", "\u200b\u00a0", "🇩🇪🏳️‍🌈"]


@pytest.fixture(scope="module", params=BUILT.values(), ids=BUILT)
def pair(request):
    """Ours, and the library's tokenizer that it is made of."""
    theirs = request.param()
    return HFTokenizer(json.loads(theirs.to_str()), lossy=True), theirs


@conformance("tokenizer.lmx-hf/hf", options={"path": str(BYTE_LEVEL)})
def test_a_byte_level_vocabulary_keeps_the_promises_of_a_tokenizer(check):
    check()


@pytest.mark.parametrize("text", TEXTS)
def test_tokens_are_the_librarys(pair, text):
    """As `encode` gives them without special tokens, whose text is text like any other."""
    ours, theirs = pair
    theirs.encode_special_tokens = True
    assert ours.encode(text) == theirs.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("text", TEXTS)
def test_text_is_the_librarys(pair, text):
    """Token by token what `decode` gives for the whole, but for the space before the first word."""
    ours, theirs = pair
    tokens = ours.encode(text)
    whole = theirs.decode(tokens, skip_special_tokens=False)
    joined = "".join(stream_text(ours, tokens))
    assert joined == decode(ours, tokens)
    assert whole in (joined, joined.removeprefix(" "), joined.removesuffix(" "))


@pytest.mark.parametrize("build", [gpt2, llama2, llama3])
def test_every_text_comes_back(build):
    """Where every byte has a token; with the space that LLaMA 2's kind puts before a text."""
    tokenizer = HFTokenizer(json.loads(build().to_str()))
    for text in TEXTS:
        assert tokenizer.decode_bytes(tokenizer.encode(text)) in (text.encode(), b" " + text.encode())


def test_bytes_that_are_no_text_have_tokens():
    """A file that is no UTF-8 comes back; where bytes have no tokens, it is refused."""
    text = bytes(range(256)).decode("utf-8", "surrogateescape")
    tokenizer = HFTokenizer(json.loads(gpt2().to_str()))
    assert tokenizer.decode_bytes(tokenizer.encode(text)) == as_bytes(text)
    with pytest.raises(DataError, match="no UTF-8 and the tokenizer has no token for its byte 0x80"):
        HFTokenizer(json.loads(words().to_str()), lossy=True).encode(text)


def test_a_tokenizer_that_changes_text_is_refused():
    """Before bits per byte are wrong; the message shows where, and the way out."""
    data = json.loads(words().to_str())
    message = r"changes the text: 'To be' comes back as 'to be'.*lossy = true"
    with pytest.raises(DataError, match=message):
        HFTokenizer(data).encode("To be")
    assert HFTokenizer(data).encode("to be") == HFTokenizer(data, lossy=True).encode("To be")


def test_special_tokens_are_decoded_as_their_text():
    """A model that was trained with them may write them."""
    theirs = gpt2()
    theirs.add_special_tokens(["<fin é>"])
    tokenizer = HFTokenizer(json.loads(theirs.to_str()))
    for text in ("<|endoftext|>", "<fin é>"):
        assert tokenizer.decode_bytes([theirs.token_to_id(text)]) == text.encode()
    assert tokenizer.decode_bytes([tokenizer.vocab_size, -1]) == 2 * UNKNOWN


def test_truncation_and_padding_are_left_out():
    """A text keeps its length, whatever a fine-tuning script left in the file."""
    theirs = gpt2()
    theirs.enable_truncation(4)
    theirs.enable_padding(length=100)
    assert HFTokenizer(json.loads(theirs.to_str())).encode(TEXT) == HFTokenizer(json.loads(gpt2().to_str())).encode(
        TEXT
    )


def test_ids_with_gaps_fit_the_vocabulary():
    """`vocab_size` is one more than the highest id, not the number of tokens."""
    data = json.loads(gpt2().to_str())
    data["model"]["vocab"]["zzz"] = 1000
    assert HFTokenizer(data).vocab_size == 1001


def test_a_decoder_that_needs_the_whole_sequence_is_refused():
    theirs = gpt2()
    theirs.decoder = decoders.CTC()
    with pytest.raises(DataError, match="its decoder is CTC, which says nothing about single tokens"):
        HFTokenizer(json.loads(theirs.to_str()))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read .*tokenizer.json: No such file or directory. Correct the tokenizer's path."),
        ("{", "no tokenizer.json .JSONDecodeError"),
        ("[]", "no tokenizer.json .TypeError: it holds a list, not a table"),
        ('{"model": ' + "[" * 100_000, "no tokenizer.json .RecursionError"),
        ('{"model": 3}', "tokenizer.json: tokenizers cannot read it"),
    ],
)
def test_a_file_that_is_no_tokenizer_is_explained(tmp_path, content, message):
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(DataError, match=message):
        HFTokenizer.fit([], HFTokenizerOptions(path=str(tmp_path)))


def test_a_path_must_be_given():
    with pytest.raises(ConfigError, match="path: is missing"):
        filled("tokenizer", registry("tokenizer").get("hf"), spec("hf"))


def test_the_libraries_are_imported_when_they_are_used():
    """Neither discovery nor `import lmx_hf` pays for them, nor do the classes before they are used."""
    heavy = ("transformers", "datasets", "tokenizers", "huggingface_hub", "jinja2", "pyarrow")
    command = (
        f"import lmx_hf, sys; lmx_hf.HFTokenizer, lmx_hf.HFDataset; sys.exit(any(m in sys.modules for m in {heavy}))"
    )
    assert subprocess.run([sys.executable, "-c", command], check=False).returncode == 0


def test_the_readme_trains(tmp_path, monkeypatch):
    """The README's example runs; its config is trained; the tokenizer saved with the model is whole, and generates text."""
    monkeypatch.chdir(tmp_path)
    readme = (HERE.parent / "README.md").read_text()
    (tmp_path / "notes.toml").write_text(readme.partition("```toml\n")[2].partition("```")[0])
    for folder, file, text in (("notes", "a.txt", TEXT * 100), ("gpt2", "tokenizer.json", gpt2().to_str())):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / file).write_text(text)
    exec(readme.partition("```python\n")[2].partition("```")[0], {})
    numbers = {"max_steps": 60, "learning_rate": 0.01, "batch_size": 4, "seq_len": 16, "warmup_steps": 2}
    changes = [f"train.{key}={value}" for key, value in numbers.items()]
    job = main.started(tmp_path / "notes.toml", changes, None, False)
    assert job.run()["val_bpb"] < 1

    (tmp_path / "gpt2" / "tokenizer.json").unlink()
    model = load_model(job.path)
    tokenizer = load_tokenizer(next(job.path.glob("checkpoints/*/tokenizer.json")))
    assert model.config.vocab_size == tokenizer.vocab_size == HFTokenizer(json.loads(gpt2().to_str())).vocab_size
    drawn = generate(model, tokenizer.encode("to be or"), max_tokens=40, temperature=0.0)
    assert decode(tokenizer, drawn).startswith(" not to be, that is the question\n")


FOLDERS = {
    "vocab.json and merges.txt": (vocab_and_merges, ()),
    "tiktoken": (ranks, ("tiktoken",)),
    "SentencePiece": (sentencepiece, ("sentencepiece", "google.protobuf")),
}


@pytest.mark.parametrize(("kind", "needs"), FOLDERS.values(), ids=FOLDERS)
def test_folders_without_a_tokenizer_json_are_read(tmp_path, kind, needs):
    """As `AutoTokenizer` reads them, also where it would run the folder's code: that is not run."""
    for name in needs:
        pytest.importorskip(name, reason=f"{name} reads these files")
    folder = kind(tmp_path / "model")
    ours, theirs = HFTokenizer.read(folder), auto(folder)
    for text in [*TEXTS, *EMOJIS]:
        if not any(special in text for special in SPECIAL):
            assert ours.encode(text) == theirs.encode(text, add_special_tokens=False)
            assert ours.decode_bytes(ours.encode(text)).decode() in (text, f" {text}")


def auto(folder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("build", BUILT.values(), ids=BUILT)
def test_a_folder_is_read_and_written_as_transformers_does(tmp_path, build):
    """The same ids, with special tokens in the text and without, from the folder and from the one that is written."""
    made = build()
    named = {"eos_token": "</s>", "unk_token": "<unk>"} if made.token_to_id("</s>") else {"bos_token": "<|begin|>"}
    folder = written(tmp_path / "one", made, **named)
    ours = HFTokenizer.read(folder)
    ours.write(tmp_path / "two")
    for theirs in (auto(folder), auto(tmp_path / "two")):
        for text in [*TEXTS, *EMOJIS, "<|begin|>x</s> <unk>"]:
            assert ours.encode_special(text) == theirs.encode(text, add_special_tokens=False)
        assert ours.special_tokens >= {*theirs.all_special_ids}
        assert {role: theirs.special_tokens_map[role] for role in named} == named
    assert HFTokenizer.read(tmp_path / "two").to_dict() == ours.to_dict()


def test_a_prompt_begins_as_the_tokenizer_has_it(tmp_path):
    """Once, whoever writes it; nothing is put at its end (T5)."""
    ours = HFTokenizer.read(written(tmp_path / "model", llama3(), bos_token="<|begin|>"))
    plain = ours.encode("to be")
    assert ours.bos_token == 0
    assert ours.encode_prompt("to be") == ours.encode_prompt("<|begin|>to be") == [0, *plain]
    assert ours.encode("<|begin|>to be") != [0, *plain]
    ends = HFTokenizer(json.loads(BUILT["unigram"]().to_str()), lossy=True)
    assert ends.encode_prompt("to be") == ends.encode("to be")


def test_a_folder_without_a_tokenizer_has_none(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert HFTokenizer.read(tmp_path) is None


def test_reading_accepts_what_a_tokenizer_changes(tmp_path):
    """A model is used as it is: a prompt in upper case is no error."""
    assert HFTokenizer.read(written(tmp_path / "model", words())).encode("To be")


@pytest.mark.parametrize(
    ("files", "ends"),
    [
        ({}, (2,)),
        ({"generation_config.json": {"eos_token_id": 7}, "config.json": {"eos_token_id": 9}}, (2, 7)),
        ({"generation_config.json": {"eos_token_id": [7, 2, 8]}}, (2, 7, 8)),
        ({"config.json": {"eos_token_id": 9}}, (2, 9)),
        ({"config.json": {"text_config": {"eos_token_id": [9]}, "eos_token_id": None}}, (2, 9)),
    ],
)
def test_all_ends_of_a_text_are_known(tmp_path, files, ends):
    """The tokenizer's own first, then those of generation_config.json or else of config.json; saved with it."""
    folder = written(tmp_path / "model", gpt2(), eos_token={"content": "</s>", "lstrip": False})
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    tokenizer = HFTokenizer.read(folder)
    assert tokenizer.eos_tokens == ends
    save_tokenizer("hf", tokenizer, tmp_path / "saved.json")
    assert load_tokenizer(tmp_path / "saved.json").eos_tokens == ends


def test_tokens_that_the_config_alone_names_are_known(tmp_path):
    """In the order of their ids, after those of tokenizer.json; special ones are special in the vocabulary too."""
    folder = written(
        tmp_path / "model",
        gpt2(),
        added_tokens_decoder={
            "321": {"content": "<two>", "special": True, "lstrip": False, "__type": "AddedToken"},
            "320": {"content": "<one>", "special": False, "normalized": False},
        },
        additional_special_tokens=["th"],
    )
    ours, theirs = HFTokenizer.read(folder), auto(folder)
    text = "<two>the<one><|endoftext|>"
    assert ours.encode_special(text) == theirs.encode(text, add_special_tokens=False)
    assert {theirs.convert_tokens_to_ids("<two>"), 0} <= ours.special_tokens


def test_saved_before_there_were_settings_it_is_read():
    data = HFTokenizer(json.loads(gpt2().to_str())).to_dict()
    del data["settings"]
    assert HFTokenizer.from_dict(data).encode(TEXT) == HFTokenizer.from_dict(data).encode_batch([TEXT])[0]


def test_many_texts_at_once_are_each_alone(pair):
    """Bytes that are no characters among them, where they have tokens."""
    ours, _ = pair
    assert ours.encode_batch(TEXTS) == [ours.encode(text) for text in TEXTS]
    escaped = "to \udcff be"
    if ours.vocab_size > 256:
        assert ours.encode_batch([TEXT, escaped]) == [ours.encode(TEXT), ours.encode(escaped)]


@pytest.mark.parametrize("build", BUILT.values(), ids=BUILT)
def test_text_streams_in_whole_characters(build):
    """No piece ends in a part of a character; special tokens are left out where they are not wanted."""
    tokenizer = HFTokenizer(json.loads(build().to_str()), lossy=True)
    special = min(tokenizer.special_tokens)
    for text in [*TEXTS, *EMOJIS]:
        tokens = [special, *tokenizer.encode(text), special]
        pieces = [*stream_text(tokenizer, tokens, skip=tokenizer.special_tokens)]
        assert "".join(pieces) == decode(tokenizer, tokens, skip=tokenizer.special_tokens)
        assert "".join(stream_text(tokenizer, tokens)) == decode(tokenizer, tokens)
        if tokenizer.vocab_size > 256:  # every byte has a token: nothing is lost
            assert "".join(pieces) in (text, f" {text}")
            assert "\ufffd" not in "".join(pieces)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer_config.json", "[]", "tokenizer_config.json is damaged: it holds a list, not a table"),
        ("generation_config.json", "{", "generation_config.json is damaged"),
        ("chat_template.jinja", b"\xff", "cannot read .*chat_template.jinja"),
    ],
)
def test_a_damaged_folder_is_explained(tmp_path, name, content, message):
    folder = written(tmp_path / "model", gpt2())
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message):
        HFTokenizer.read(folder)


def test_files_that_transformers_cannot_read_are_explained(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"none")
    with pytest.raises(
        DataError, match="transformers cannot read its tokenizer .*or put a tokenizer.json into the folder"
    ):
        HFTokenizer.read(tmp_path)
