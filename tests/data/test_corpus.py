"""What a run reads: documents to train on, and the beginning of what is held out."""

import hashlib

import numpy as np
import pytest

from lmx_core import spec
from lmx_core.construct import build
from lmx_core.data.corpus import DataConfig, HeldOut, read_corpus
from lmx_core.data.documents import AT_ONCE, Documents, Example, digest, joined
from lmx_core.data.reading import Share
from lmx_core.data.tokenizers import CharTokenizer
from lmx_core.errors import ConfigError, DataError
from lmx_core.registry import registry
from lmx_core.serialize import structure


def example(*tokens, learn=None):
    return Example(np.array(tokens, np.int32), None if learn is None else np.array(learn, bool))


def told(documents):
    return [each.tokens.tolist() for each in documents]


@pytest.fixture
def offered():
    """Offer a dataset of these texts, or examples, for a moment."""
    names = []

    def offer(train, validation, encoded=None):
        class Given:
            asked = 0

            def documents(self, split):
                for text in train if split == "train" else validation:
                    Given.asked += split == "validation"
                    yield text

        if encoded is not None:
            Given.encoded = lambda self, tokenizer, split: encoded[split]
        names.append(f"given-{len(names)}")
        registry("dataset").register(names[-1])(Given)
        return spec(names[-1]), Given

    yield offer
    for name in names:
        registry("dataset").unregister(name)


def corpus(dataset, named="bytes", size=100, glimpse=10, **more):
    return read_corpus(DataConfig(dataset=dataset, tokenizer=named), size, glimpse, **more)


# Documents


def test_documents_are_joined():
    found = joined([example(1, 2), example(), example(3)], 256)

    assert found.tokens.dtype == np.uint16
    assert found.tokens.tolist() == [1, 2, 3]
    assert (found.ends.tolist(), found.starts.tolist()) == ([2, 3], [0, 2])
    assert found.learn is None
    assert len(found) == 2
    assert told(found) == [[1, 2], [3]]
    assert len(joined([], 256).tokens) == len(joined([], 256)) == 0


def test_tokens_take_no_more_room_than_they_need():
    assert joined([example(65_535)], 2**16).tokens.dtype == np.uint16
    assert joined([example(65_536)], 2**16 + 1).tokens.dtype == np.uint32
    assert joined([example(65_536)], 2**16 + 1).tokens.tolist() == [65_536]


def test_what_is_not_said_to_be_learned_is():
    """Where some documents say what is learned, all of the others is."""
    found = joined([example(1, 2, learn=[0, 1]), example(3)], 256)

    assert found.learn.tolist() == [False, True, True]
    assert [each.learn.tolist() for each in found] == [[False, True], [True]]


def test_the_digest_stands_for_tokens_and_masks():
    plain, masked = joined([example(1, 2)], 256), joined([example(1, 2, learn=[0, 1])], 256)

    assert plain.sha256 == hashlib.sha256(bytes([1, 0, 2, 0])).hexdigest()
    assert len({plain.sha256, masked.sha256, joined([example(1, 2, learn=[1, 1])], 256).sha256}) == 3


def test_the_digest_is_that_of_the_whole():
    """However many pieces a file is read in."""
    random = np.random.default_rng(0)
    tokens = random.integers(0, 256, 2 * AT_ONCE + 3).astype(np.uint16)
    learn = random.random(len(tokens)) < 0.5

    assert digest(tokens) == hashlib.sha256(tokens.tobytes()).hexdigest()
    assert digest(tokens, learn) == hashlib.sha256(tokens.tobytes() + np.packbits(learn).tobytes()).hexdigest()


# Texts


def test_each_text_is_a_document(offered):
    """Joined they are the text, without anything between; empty ones are left out."""
    found = corpus(offered(["ab", "", "c\udcff", "é"], ["held", " out"])[0])

    assert bytes(found.train.tokens.astype(np.uint8)) == b"abc\xff\xc3\xa9"
    assert found.train.ends.tolist() == [2, 4, 6]
    assert found.train.learn is None
    assert found.parts == ((found.train, 1.0),)
    assert (found.validation.tokens.tolist(), found.validation.size, found.validation.scored) == (
        list(b"held out"),
        8,
        7,
    )


def test_the_fingerprint_is_that_of_the_joined_text(offered):
    found = corpus(offered(["ab", "c"], ["held out"])[0])

    assert found.fingerprint() == {
        "train_tokens": 3,
        "train_sha256": hashlib.sha256(np.array(list(b"abc"), np.uint16).tobytes()).hexdigest(),
        "validation_bytes": 8,
        "validation_sha256": hashlib.sha256(b"held out").hexdigest(),
    }


def test_no_character_is_cut(offered):
    """The held-out text ends before the character that its size would cut, and so does the glimpse."""
    found = corpus(offered(["a"], ["aé", "é" * 9])[0], size=6, glimpse=4)

    assert bytes(found.validation.tokens.astype(np.uint8)).decode() == "aéé"
    assert bytes(found.glimpse.tokens.astype(np.uint8)).decode() == "aé"


def test_no_more_is_held_out_than_is_asked_for(offered):
    """A dataset that has much is not read to its end."""
    dataset, given = offered(["a"], (f"{i:10}" for i in range(10**6)))
    corpus(dataset, size=95)

    assert given.asked <= 11


def test_a_tokenizer_is_fitted_on_both_sides(offered):
    """On the held-out text as far as it is read."""
    found = corpus(offered(["cab"], ["dd", "x"])[0], "chars", size=2, glimpse=2)
    assert found.tokenizer.characters == "abcd"
    assert found.validation.tokens.tolist() == [3, 3]


def test_a_tokenizer_that_is_given_is_not_fitted(offered):
    found = corpus(offered(["ba"], ["ab"])[0], tokenizer=CharTokenizer("ab"))
    assert found.train.tokens.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("train", "validation", "message"),
    [
        ([], ["ab"], "the training split of dataset given-0 is empty. Give it more"),
        ([""], ["ab"], "the training split"),
        (["a"], [""], "the validation split of dataset given-0 is empty"),
        (["a"], ["b"], "1 bytes of held-out text are 1 token; an evaluation needs 2"),
    ],
)
def test_an_empty_side_is_explained(offered, train, validation, message):
    with pytest.raises(DataError, match=message):
        corpus(offered(train, validation)[0])


# Documents that are learned in part


def test_masks_reach_the_corpus(offered):
    """On both sides, which then are documents; the glimpse is the first of them."""
    masked = {
        "train": [example(97, 98, learn=[0, 1]), example(), example(99)],
        "validation": [example(*b"question", *b"answer", learn=[0] * 8 + [1] * 6)] * 4,
    }
    found = corpus(offered([], [], masked)[0], size=30, glimpse=1)

    assert found.train.learn.tolist() == [False, True, True]
    assert isinstance(found.validation, Documents)
    assert told(found.validation) == [list(b"questionanswer")] * 2
    assert found.validation.learn.sum() == 12
    assert told(found.glimpse) == [list(b"questionanswer")]
    assert found.fingerprint() == {
        "train_tokens": 3,
        "train_sha256": found.train.sha256,
        "validation_tokens": 28,
        "validation_sha256": found.validation.sha256,
    }


def test_masks_that_say_all_are_masks(offered):
    """Whether a dataset has masks does not depend on what its first documents are."""
    whole = {"train": [example(1, 2)], "validation": [example(1, 2)]}
    assert corpus(offered([], [], whole)[0]).train.learn.tolist() == [True, True]


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_corpus_without_answers_is_explained(offered, split):
    some = {"train": [example(1, 2)], "validation": [example(1, 2)]}
    nothing = {**some, split: [example(1, 2, learn=[0, 0])] * 3}
    with pytest.raises(
        DataError, match=f"nothing in the 3 documents of the {split} split of dataset given-0 is learned"
    ):
        corpus(offered([], [], nothing)[0])


# Mixtures


def mixture(*parts):
    return spec("mixture", parts=[{"dataset": dataset, **more} for dataset, more in parts])


def test_a_mixture_has_parts(offered):
    """Each with its share, whatever its size; mixtures of mixtures too."""
    a, b, c = (offered([name * count], [name.upper() * 99])[0] for name, count in (("a", 30), ("b", 2), ("c", 1)))
    inner = mixture((b, {"weight": 1.0}), (c, {"weight": 3.0}))
    found = corpus(mixture((a, {}), (inner, {"weight": 4.0})), size=40, glimpse=20)

    assert [len(documents.tokens) for documents, _ in found.parts] == [30, 2, 1]
    assert [share for _, share in found.parts] == pytest.approx([0.2, 0.2, 0.6])
    assert bytes(found.validation.tokens.astype(np.uint8)) == b"A" * 8 + b"B" * 8 + b"C" * 24
    assert bytes(found.glimpse.tokens.astype(np.uint8)) == b"A" * 4 + b"B" * 4 + b"C" * 12
    assert found.fingerprint()["train_tokens"] == 33
    with pytest.raises(DataError, match="this corpus is a mixture of 3 parts"):
        _ = found.train


def test_a_corpus_is_told_by_where_its_documents_end(offered):
    """Its tokens may be the same ones, and samples still be others; the digest of the tokens stays that of the text."""
    one, other = (corpus(offered(texts, ["held out"])[0]) for texts in (["ab", "cd"], ["abc", "d"]))
    assert one.train_sha256 == other.train_sha256
    assert one.identity != other.identity
    assert one.identity == corpus(offered(["ab", "cd"], ["held out"])[0]).identity


def test_the_smallest_share_is_a_byte():
    """Rounded down it would be none, and its part of the held-out text be called empty."""
    share = Share(dataset=None, weight=1e-6, named="x", path="")
    assert [share.of(size) for size in (10, 10**6, 10**7)] == [1, 1, 10]


def test_a_mixture_is_told_by_its_shares(offered):
    a, b = (offered([name], [name * 9])[0] for name in "ab")
    digests = {corpus(mixture((a, {"weight": w}), (b, {}))).train_sha256 for w in (1.0, 2.0)}
    assert len(digests | {corpus(mixture((b, {}), (a, {}))).train_sha256}) == 3
    assert corpus(mixture((a, {}))).train_sha256 == corpus(a).train_sha256


def test_a_mixture_with_answers_is_held_out_as_documents(offered):
    """What is text in it is learned as a whole."""
    text = offered(["ab"], ["abcdef"])[0]
    masked = {"train": [example(1, 2, learn=[0, 1])], "validation": [example(1, 2, learn=[0, 1])]}
    found = corpus(mixture((text, {}), (offered([], [], masked)[0], {})), size=8)

    assert told(found.validation) == [list(b"abcd"), [1, 2]]
    assert found.validation.learn.tolist() == [True] * 4 + [False, True]
    assert [documents.learn is None for documents, _ in found.parts] == [True, False]


def test_one_tokenizer_is_fitted_on_all_parts(offered):
    a, b = (offered([name], [name.upper() * 4])[0] for name in "ab")
    assert corpus(mixture((a, {}), (b, {})), "chars").tokenizer.characters == "ABab"


def test_the_shipped_datasets_mix(tmp_path):
    """As a config file writes it."""
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(f"{name}\n" * 100)
    table = {
        "dataset": {
            "name": "mixture",
            "parts": [
                {"dataset": {"name": "text", "paths": str(tmp_path / "a.txt")}, "weight": 3},
                {"dataset": {"name": "text", "paths": str(tmp_path / "b.txt")}},
            ],
        }
    }
    found = read_corpus(structure(table, DataConfig, "a.toml", "data", installed=True), 20, 8)

    assert [share for _, share in found.parts] == [0.75, 0.25]
    assert isinstance(found.validation, HeldOut)
    assert bytes(found.validation.tokens.astype(np.uint8)) == b"a\n" * 7 + b"a" + b"b\n" * 2 + b"b"


@pytest.mark.says_names
def test_mistakes_in_parts_have_paths(offered):
    good, empty = offered(["a"], ["bc"])[0], offered([], ["bc"])[0]
    with pytest.raises(
        DataError, match=r"^parts\[1\].dataset.parts\[0\].dataset: the training split of dataset Given is"
    ):
        corpus(mixture((good, {}), (mixture((empty, {})), {})))
    table = {
        "dataset": {
            "name": "mixture",
            "parts": [{"dataset": "txt"}, {"dataset": "text", "weight": 0}, {"weight": 1}, {"dataset": "shakespeare"}],
        }
    }
    with pytest.raises(ConfigError) as problem:
        structure(table, DataConfig, "a.toml", "data", installed=True)
    lines = str(problem.value).splitlines()
    assert any("data.dataset.parts[0].dataset: no dataset named 'txt'. Did you mean 'text'" in line for line in lines)
    assert any("data.dataset.parts[1].weight: must be > 0, got 0" in line for line in lines)
    assert any("data.dataset.parts[2].dataset" in line and "missing" in line for line in lines)
    with pytest.raises(ConfigError, match="parts: expected parts such as"):
        structure({"dataset": {"name": "mixture", "parts": []}}, DataConfig, "a.toml", "data", installed=True)


def test_a_mixture_is_a_dataset(offered):
    """Its documents are those of its parts."""
    a, b = (offered([name, name], [name.upper()])[0] for name in "ab")
    made = build("dataset", mixture((a, {}), (b, {"weight": 3.0})))
    assert [*made.documents("train")] == ["a", "a", "b", "b"]
    assert [*made.documents("validation")] == ["A", "B"]
