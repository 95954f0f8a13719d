"""What a Hugging Face tokenizer promises beyond what every tokenizer does."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from lmx_core import generate, load_model
from lmx_core.config import spec
from lmx_core.construct import filled
from lmx_core.data.tokenizers import UNKNOWN, as_bytes, decode, load_tokenizer, stream_text
from lmx_core.errors import ConfigError, DataError
from lmx_core.registry import registry
from lmx_core.testing import conformance
from lmx_core.train import main
from lmx_hf import HFTokenizer, HFTokenizerOptions
from lmx_hf.pieces import ALPHABET

HERE = Path(__file__).parent
BYTE_LEVEL = HERE / "byte_level.json"
"""Written by `gpt2().save(...)` below."""
TEXT = "to be or not to be, that is the question\n"
TEXTS = [
    TEXT,
    "  spaces  on all sides  ",
    "Zwölf Boxkämpfer, 日本語, 🙂👩‍👩‍👧, e\u0301\u00a0\u200b\x00",
    "<|endoftext|> <s> <unk> </s>",
    "def f(x):\n\treturn x + 1\r\n",
    "",
]
SPECIAL = ["<|endoftext|>", "<s>", "</s>", "<unk>"]


def trained(model, trainer, **parts):
    """A tokenizer of `tokenizers`, fitted on a little text."""
    found = Tokenizer(model)
    for name, part in parts.items():
        setattr(found, name, part)
    found.train_from_iterator([TEXT] * 20, trainer(special_tokens=SPECIAL, show_progress=False))
    return found


def gpt2():
    """A byte-level vocabulary that adds a token before every text, if asked to."""
    return trained(
        models.BPE(),
        lambda **options: trainers.BpeTrainer(vocab_size=320, initial_alphabet=ALPHABET, **options),
        pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=False),
        decoder=decoders.ByteLevel(),
        post_processor=processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)]),
    )


def llama2():
    """Spaces as a character of their own, one before the text, and bytes where characters are unknown."""
    made = [f"<0x{byte:02X}>" for byte in range(256)]
    plain = trained(
        models.BPE(unk_token="<unk>"),
        lambda special_tokens, **options: trainers.BpeTrainer(
            vocab_size=400, special_tokens=[*special_tokens, *made], **options
        ),
        normalizer=normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
        decoder=decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        ),
    )
    data = json.loads(plain.to_str())
    data["model"] |= {"byte_fallback": True, "fuse_unk": True}
    data["added_tokens"] = [added for added in data["added_tokens"] if added["content"] in SPECIAL]
    return Tokenizer.from_str(json.dumps(data))


def words():
    """Lower case, known words alone: what comes back is another text."""
    return trained(
        models.WordPiece(unk_token="<unk>"),
        lambda **options: trainers.WordPieceTrainer(vocab_size=60, **options),
        normalizer=normalizers.Lowercase(),
        pre_tokenizer=pre_tokenizers.BertPreTokenizer(),
        decoder=decoders.WordPiece(cleanup=False),
    )


BUILT = {"byte level": gpt2, "byte fallback": llama2, "words": words}


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
    assert whole in (joined, joined.removeprefix(" "))


@pytest.mark.parametrize("build", [gpt2, llama2])
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
    theirs.decoder = decoders.BPEDecoder()
    with pytest.raises(DataError, match="its decoder is BPEDecoder, which says nothing about single tokens"):
        HFTokenizer(json.loads(theirs.to_str()))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read .*tokenizer.json: No such file or directory. Correct the tokenizer's path."),
        ("{", "no tokenizer.json .JSONDecodeError"),
        ("[]", "no tokenizer.json .Type(Check)?Error"),
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


def test_the_library_is_imported_when_it_is_used():
    """Neither discovery nor `import lmx_hf` pays for it."""
    command = "import lmx_hf, sys; sys.exit('tokenizers' in sys.modules)"
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
