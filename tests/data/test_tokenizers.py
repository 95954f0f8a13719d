"""The promises of the tokenizers."""

import base64
import json
import sys
from importlib.util import find_spec

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmx_core.config import spec
from lmx_core.construct import filled
from lmx_core.data.tokenizers import (
    GPT2_PATTERN,
    ByteTokenizer,
    CharTokenizer,
    TiktokenOptions,
    TiktokenTokenizer,
    decode,
    load_tokenizer,
    save_tokenizer,
    stream_text,
)
from lmx_core.errors import CheckpointError, ConfigError, DataError, LmxError, UnknownComponentError
from lmx_core.registry import registry

SAMPLE = "def f(x):\n    return x  # naïve café 你好 🙂\r\n"
MERGES = [b"  ", b"    ", b"re", b"tu", b"retu", b"rn", b"return", " 你".encode()]
needs_tiktoken = pytest.mark.skipif(find_spec("tiktoken") is None, reason="tiktoken is not installed")
quick = settings(max_examples=60, deadline=None)


def rank_file(path, merges=MERGES):
    tokens = [*(bytes([i]) for i in range(256)), *merges]
    path.write_text("".join(f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(tokens)))
    return str(path)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return rank_file(tmp_path_factory.mktemp("ranks") / "small.tiktoken")


@pytest.fixture(scope="module", params=["bytes", "chars", pytest.param("tiktoken", marks=needs_tiktoken)])
def fitted(request):
    """A tokenizer's name, and how to make it for a text."""
    options = [] if request.param != "tiktoken" else [TiktokenOptions(path=request.getfixturevalue("ranks"))]
    return request.param, lambda text: registry("tokenizer").get(request.param).fit([text], *options)


@given(raw=st.binary() | st.text().map(str.encode) | st.just(SAMPLE.encode()))
@quick
def test_any_bytes_come_back(fitted, raw):
    """What a file holds, UTF-8 or not, is what its tokens decode to; each token is within the vocabulary."""
    text = raw.decode("utf-8", "surrogateescape")
    tokenizer = fitted[1](text or "a")

    tokens = tokenizer.encode(text)

    assert tokenizer.decode_bytes(tokens) == raw
    assert all(type(token) is int and 0 <= token < tokenizer.vocab_size for token in tokens)


@given(raw=st.binary(min_size=1) | st.text(min_size=1).map(str.encode))
@quick
def test_a_saved_tokenizer_is_the_same(fitted, tmp_path_factory, raw):
    """Loaded again, a tokenizer has the same vocabulary and the same tokens for every text."""
    name, fit = fitted
    text = raw.decode("utf-8", "surrogateescape")
    tokenizer, file = fit(text), tmp_path_factory.getbasetemp() / "tokenizer.json"

    save_tokenizer(name, tokenizer, file)
    loaded = load_tokenizer(file)

    assert type(loaded) is type(tokenizer)
    assert loaded.vocab_size == tokenizer.vocab_size
    assert loaded.encode(text) == tokenizer.encode(text)


@given(raw=st.binary(min_size=1) | st.text(min_size=1).map(str.encode))
@quick
def test_streamed_pieces_are_the_text(fitted, raw):
    """Token by token, `stream_text` says what `decode` says at once."""
    tokenizer = fitted[1](raw.decode("utf-8", "surrogateescape"))
    tokens = tokenizer.encode(raw.decode("utf-8", "surrogateescape"))

    pieces = list(stream_text(tokenizer, tokens))

    assert "".join(pieces) == decode(tokenizer, tokens) == raw.decode("utf-8", "replace")
    assert all(pieces)


def test_a_stream_shows_whole_characters_at_once():
    """A character is shown with its last byte, never in halves; what never becomes whole is shown at the end."""
    assert list(stream_text(ByteTokenizer(), "aé🙂".encode() + "é".encode()[:1])) == ["a", "é", "🙂", "\ufffd"]


def test_tokens_may_be_left_out_of_a_text():
    """Between two halves of a character too."""
    tokens = "aé🙂".encode()
    mixed = [0, *tokens[:2], 1, *tokens[2:], 0]
    assert decode(ByteTokenizer(), mixed, skip={0, 1}) == "aé🙂"
    assert list(stream_text(ByteTokenizer(), mixed, skip={0, 1})) == ["a", "é", "🙂"]


def test_text_is_not_held_back():
    """A piece is there before the next token is drawn."""
    drawn = []

    def tokens():
        for token in b"ab":
            drawn.append(token)
            yield token

    text = stream_text(ByteTokenizer(), tokens())

    assert (next(text), drawn) == ("a", [97])


@pytest.mark.parametrize("token", [-1, 100_000, 2**40])
def test_a_token_without_text_is_shown_as_unknown(fitted, token):
    """A model whose vocabulary is larger than its tokenizer's may draw any token: U+FFFD, no crash."""
    tokenizer = fitted[1]("a")

    assert decode(tokenizer, [*tokenizer.encode("a"), token]) == "a\ufffd"


def test_half_a_character_is_refused(fitted):
    """A lone UTF-16 half stands for no bytes."""
    with pytest.raises(DataError, match=r"character 1 of the text is '\\ud83d'|no token: '\\ud83d'"):
        fitted[1]("ab").encode("a\ud83d")


@given(texts=st.lists(st.text(), min_size=1).filter(any), order=st.randoms())
@quick
def test_characters_do_not_depend_on_the_order_of_texts(texts, order):
    """The same characters, however they are spread, have the same tokens."""
    joined = "".join(texts)
    order.shuffle(texts)

    assert CharTokenizer.fit(texts).encode(joined) == CharTokenizer.fit([joined]).encode(joined)
    assert CharTokenizer.fit(texts).vocab_size == len(set(joined))


def test_unknown_characters_are_named():
    """Which characters have no token, how often they occur, what there is, and the way out."""
    with pytest.raises(DataError) as refused:
        CharTokenizer.fit(["hello world"]).encode("wörld, ö")

    for part in ("'ö' (2 times)", "',' (1 times)", "fitted on 8", "dehlorw", '"bytes"'):
        assert part in str(refused.value)
    assert "'w'" not in str(refused.value)
    assert str(refused.value).index("'ö'") < str(refused.value).index("','")


def test_no_characters_are_no_tokenizer():
    with pytest.raises(DataError, match="Fit it on a text"):
        CharTokenizer.fit(["", ""])


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "[]", "5", '"bytes"', "{}", '{"name": 5}'),
        *('{"name": "chars"}', '{"name": "chars", "characters": 5}'),
        *('{"name": "tiktoken"}', '{"name": "tiktoken", "encoding": 5}', '{"name": "tiktoken", "ranks": {"a": 1}}'),
    ],
)
def test_a_damaged_file_is_reported(tmp_path, content):
    """Whatever is in the file: its name, what is wrong, the way out."""
    if "encoding" in content and find_spec("tiktoken") is None:
        pytest.skip("tiktoken is not installed")
    file = tmp_path / "tokenizer.json"
    file.write_text(content)

    with pytest.raises(CheckpointError, match=r"(?s)tokenizer\.json is damaged.*another checkpoint"):
        load_tokenizer(file)


def test_a_truncated_file_is_damaged(tmp_path):
    file = tmp_path / "tokenizer.json"
    save_tokenizer("chars", CharTokenizer(SAMPLE), file)
    file.write_bytes(file.read_bytes()[:-3])

    with pytest.raises(CheckpointError, match="damaged"):
        load_tokenizer(file)


def test_a_missing_file_is_reported(tmp_path):
    with pytest.raises(CheckpointError, match=r"cannot read .*tokenizer\.json: No such file"):
        load_tokenizer(tmp_path / "tokenizer.json")


@pytest.mark.parametrize("name", ["byts", "os:getcwd", "lmx_core.data.tokenizers:ByteTokenizer"])
def test_a_file_names_no_code(tmp_path, name):
    """A name is looked up among what is installed, whatever it looks like."""
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps({"name": name}))

    with pytest.raises(UnknownComponentError, match="no tokenizer named"):
        load_tokenizer(file)


@needs_tiktoken
def test_merges_are_used(ranks):
    """A rank file's merges make tokens, lowest rank first, and only within a piece of the pattern."""
    tokenizer = TiktokenTokenizer.fit([], TiktokenOptions(path=ranks))
    tokens = tokenizer.encode("return 你 return")

    assert [tokenizer.decode_bytes([token]) for token in tokens][:2] == [b"return", " 你".encode()]
    assert tokenizer.vocab_size == 256 + len(MERGES)


@given(text=st.text(alphabet=st.sampled_from("aZ'sl ve\n\t 19é你_-.\u00a0")))
@quick
def test_the_default_pattern_is_gpt2s(text):
    """Texts fall into the pieces into which GPT-2's pattern, as it was published, cuts them."""
    regex = pytest.importorskip("regex", reason="regex is not installed")
    published = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

    assert regex.findall(GPT2_PATTERN, text) == regex.findall(published, text)


@needs_tiktoken
def test_special_text_is_text(ranks):
    """A corpus may say <|endoftext|>; its token is nobody's text, and is read as its name."""
    tokenizer = TiktokenTokenizer.fit([], TiktokenOptions(path=ranks, special_tokens={"<|endoftext|>": 300}))

    assert decode(tokenizer, tokenizer.encode("<|endoftext|>")) == "<|endoftext|>"
    assert 300 not in tokenizer.encode("a<|endoftext|>b")
    assert decode(tokenizer, [300]) == "<|endoftext|>"
    assert tokenizer.vocab_size == 301


@needs_tiktoken
def test_a_saved_tokenizer_needs_no_rank_file(tmp_path):
    """A model is whole without the rank file, the pattern and the special tokens that it was trained with."""
    path = tmp_path / "ranks.tiktoken"
    options = TiktokenOptions(path=rank_file(path), pattern=r"\s|\S+", special_tokens={"<e>": 999})
    tokenizer = TiktokenTokenizer.fit([], options)
    save_tokenizer("tiktoken", tokenizer, tmp_path / "tokenizer.json")
    path.unlink()

    loaded = load_tokenizer(tmp_path / "tokenizer.json")

    assert loaded.encode(SAMPLE) == tokenizer.encode(SAMPLE)
    assert decode(loaded, [999]) == "<e>"


@needs_tiktoken
def test_a_rank_file_is_read_as_it_is(tmp_path):
    """A changed file counts at once; tiktoken's own reader would return the copy that it kept."""
    path = tmp_path / "ranks.tiktoken"
    sizes = [TiktokenTokenizer.fit([], TiktokenOptions(path=rank_file(path, MERGES[:n]))).vocab_size for n in (1, 3)]

    assert sizes == [257, 259]


@needs_tiktoken
@pytest.mark.parametrize("text", ["a" * 10**6, "\n" * 10**6, "!?" * 10**6], ids=["letters", "lines", "signs"])
def test_long_runs_are_encoded(ranks, text):
    """A file may be one long run of a character; tiktoken panics on it with gpt2's pattern as it was published."""
    tokenizer = TiktokenTokenizer.fit([], TiktokenOptions(path=ranks))

    assert len(tokenizer.encode(text)) == len(text)


@needs_tiktoken
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("AA== x", "line 265 is 'AA== x'"),
        ("AA==", "line 265 is"),
        ("<html>", "line 265 is"),
        ("!!!! 300", "line 265 is"),
        ("YWE= 0", "two tokens have the id 0"),
        ("YWE= -1", "the id -1 is not between"),
        ("YWE= 9999999999", "the id 9999999999 is not between"),
    ],
)
def test_a_wrong_rank_file_is_explained(tmp_path, line, message):
    path = tmp_path / "ranks.tiktoken"
    rank_file(path)
    path.write_text(path.read_text() + line + "\n")

    with pytest.raises(DataError, match=r"ranks\.tiktoken makes no tokenizer") as refused:
        TiktokenTokenizer.fit([], TiktokenOptions(path=str(path)))

    assert message in str(refused.value)


@needs_tiktoken
def test_every_byte_needs_a_rank(tmp_path):
    path = tmp_path / "ranks.tiktoken"
    rank_file(path)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))

    with pytest.raises(DataError, match=r"1 of the 256 single bytes have no rank, b'\\x00' among them"):
        TiktokenTokenizer.fit([], TiktokenOptions(path=str(path)))


@needs_tiktoken
def test_a_wrong_pattern_is_explained(ranks):
    """One that is no regular expression at once, one that loses text when it would."""
    with pytest.raises(DataError, match="makes no tokenizer"):
        TiktokenTokenizer.fit([], TiktokenOptions(path=ranks, pattern="("))
    with pytest.raises(DataError, match="leaves out 2 of 5 bytes"):
        TiktokenTokenizer.fit([], TiktokenOptions(path=ranks, pattern="[a-z]+")).encode("a b c")


@needs_tiktoken
def test_a_special_token_has_an_id_of_its_own(ranks):
    with pytest.raises(DataError, match="two tokens have the id 7"):
        TiktokenTokenizer.fit([], TiktokenOptions(path=ranks, special_tokens={"<e>": 7}))


@needs_tiktoken
def test_a_missing_rank_file_is_reported(tmp_path):
    with pytest.raises(DataError, match=r"cannot read .*none\.tiktoken: No such file"):
        TiktokenTokenizer.fit([], TiktokenOptions(path=str(tmp_path / "none.tiktoken")))


@needs_tiktoken
def test_an_encoding_that_cannot_be_downloaded_is_reported(tmp_path, monkeypatch):
    """Without a network: what to do, a rank file among it."""

    def offline(*_):
        raise ConnectionError("no route")

    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("tiktoken.registry.ENCODINGS", {})
    monkeypatch.setattr("tiktoken.load.read_file", offline)

    with pytest.raises(DataError, match=r"could not download its encoding 'gpt2' \(ConnectionError\).*option path"):
        TiktokenTokenizer.fit([])


@needs_tiktoken
def test_an_unknown_encoding_is_reported():
    with pytest.raises(ConfigError, match=r"no encoding 'gpt_2'. Did you mean 'gpt2'\? It has .*cl100k_base"):
        TiktokenTokenizer.fit([], TiktokenOptions(encoding="gpt_2"))


@needs_tiktoken
def test_a_saved_encoding_that_tiktoken_lacks_is_reported(tmp_path):
    """The file is not damaged: another tiktoken has the encoding."""
    (tmp_path / "tokenizer.json").write_text('{"name": "tiktoken", "encoding": "gpt9"}')

    with pytest.raises(ConfigError, match="tiktoken has no encoding 'gpt9'"):
        load_tokenizer(tmp_path / "tokenizer.json")


@needs_tiktoken
def test_a_named_encoding_is_saved_by_its_name(tmp_path, monkeypatch):
    """tiktoken has its own encodings; another process asks it for the same one."""
    import tiktoken

    ranks = {bytes([i]): i for i in range(256)}
    small = tiktoken.Encoding("gpt2", pat_str=r"\s|\S+", mergeable_ranks=ranks, special_tokens={})
    monkeypatch.setattr("tiktoken.registry.ENCODINGS", {"gpt2": small})
    save_tokenizer("tiktoken", TiktokenTokenizer.fit([]), tmp_path / "tokenizer.json")

    saved = json.loads((tmp_path / "tokenizer.json").read_text())
    assert [each["distribution"] for each in saved.pop("components")] == ["lmx-core"]
    assert saved == {"name": "tiktoken", "encoding": "gpt2"}
    assert load_tokenizer(tmp_path / "tokenizer.json").encode("ab") == [97, 98]


def test_a_missing_extra_is_named(monkeypatch, tmp_path):
    """Without tiktoken: the line that installs it, when it is fitted and when a model needs it."""
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    saved = tmp_path / "tokenizer.json"
    saved.write_text('{"name": "tiktoken", "encoding": "gpt2"}')

    for needed in (lambda: TiktokenTokenizer.fit([]), lambda: load_tokenizer(saved)):
        with pytest.raises(LmxError, match=r'pip install "lmx-core\[tiktoken\]"'):
            needed()


@pytest.mark.parametrize("options", [{"pattern": "x"}, {"special_tokens": {"<e>": 1}}])
def test_options_that_need_a_path_say_so(options):
    with pytest.raises(ConfigError, match="go with path; encoding='gpt2' has its own"):
        TiktokenOptions(**options)


@pytest.mark.parametrize("tokens", [{"<e>": "7"}, {"<e>": True}, {5: 7}])
def test_special_tokens_are_texts_with_ids(tokens):
    with pytest.raises(ConfigError, match="special_tokens: expected a table of int, got"):
        TiktokenOptions(path="x", special_tokens=tokens)


@pytest.mark.says_names
def test_options_come_from_a_config():
    """A config's table is read into the tokenizer's options; those without options refuse any."""
    chosen = spec("tiktoken", path="x", special_tokens={"<e>": 7})

    assert filled("tokenizer", TiktokenTokenizer, chosen)[0].special_tokens["<e>"] == 7
    with pytest.raises(ConfigError, match="'bytes' has no options"):
        filled("tokenizer", ByteTokenizer, spec("bytes", size=3))
