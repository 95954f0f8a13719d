"""What goes wrong in options, tokenizers and datasets."""

import random
import re

import attrs

from .faults import fault

# Options ----------------------------------------------------------------------------------------------------------------


def with_options(options):
    """A component that has these options, and reads none of them."""

    def apply(part):
        class Faulty(part):
            Options = options

            def __init__(self, config, options):
                super().__init__(config)

        return Faulty

    return apply


@attrs.frozen(kw_only=True)
class Callable:
    act: object = len


@fault("norm", "rms_norm", "options_round_trip", says="is no plain data")
def has_a_function_for_an_option(norm):
    return with_options(Callable)(norm)


@attrs.frozen(kw_only=True)
class Growing:
    scale: float = attrs.field(default=1.0, converter=lambda value: value * 2)


@fault("norm", "rms_norm", "options_round_trip", says="reads back as other options")
def has_an_option_that_grows(norm):
    return with_options(Growing)(norm)


# Tokenizers -------------------------------------------------------------------------------------------------------------


@fault("tokenizer", "bytes", "text_comes_back", says="became")
def strips_its_text(tokenizer):
    class Faulty(tokenizer):
        def encode(self, text):
            return super().encode(text.strip())

    return Faulty


@fault("tokenizer", "bytes", "text_comes_back", says="became")
def replaces_what_is_no_text(tokenizer):
    class Faulty(tokenizer):
        def encode(self, text):
            return list(text.encode("utf-8", "replace"))

    return Faulty


def reading(change):
    """A tokenizer that changes a text before it reads it."""

    def apply(tokenizer):
        class Faulty(tokenizer):
            def encode(self, text):
                return super().encode(change(text))

        return Faulty

    return apply


for change in (
    lambda text: text[:4096],
    lambda text: re.sub(" {4,}", " ", text),
    lambda text: re.sub("\n{3,}", "\n\n", text),
    lambda text: text.replace("\t\t", "\t"),
    lambda text: text.replace("\N{LINE SEPARATOR}", "\n"),
):
    fault("tokenizer", "bytes", "text_comes_back", says="became")(reading(change))


@fault("tokenizer", "bytes", "tokens_are_decoded_one_by_one", says="token by token")
def decodes_whole_characters(tokenizer):
    class Faulty(tokenizer):
        def decode_bytes(self, tokens):
            return super().decode_bytes(tokens).decode("utf-8", "replace").encode()

    return Faulty


@fault("tokenizer", "bytes", "ids_are_below_vocab_size", says="token 255 of a vocabulary of 255")
def counts_one_token_too_few(tokenizer):
    return type("Faulty", (tokenizer,), {"vocab_size": 255})


@fault("tokenizer", "bytes", "ids_are_below_vocab_size", says="a token is a str")
def has_tokens_that_are_no_numbers(tokenizer):
    class Faulty(tokenizer):
        def encode(self, text):
            return [str(token) for token in super().encode(text)]

    return Faulty


@fault("tokenizer", "bytes", "every_token_is_decoded", says="range")
def decodes_only_its_own_tokens(tokenizer):
    class Faulty(tokenizer):
        def decode_bytes(self, tokens):
            return bytes(tokens)

    return Faulty


class Shifted:
    """A tokenizer whose ids are moved by a number."""

    def __init__(self, shift=0):
        self.shift, self.vocab_size = shift, 512

    def encode(self, text):
        return [byte + self.shift for byte in text.encode("utf-8", "surrogateescape")]

    def decode_bytes(self, tokens):
        return bytes(token - self.shift if 0 <= token - self.shift < 256 else 63 for token in tokens)

    def to_dict(self):
        return {"shift": self.shift}

    @classmethod
    def fit(cls, texts, *options):
        return cls(sum(map(len, texts)) % 10)

    @classmethod
    def from_dict(cls, data):
        return cls(**data)


@fault("tokenizer", "bytes", "fitting_comes_again", says="two fits are saved differently")
def is_fitted_by_chance(_):
    class Faulty(Shifted):
        @classmethod
        def fit(cls, texts, *options):
            return cls(random.Random().getrandbits(200) % 2**190)

    return Faulty


@fault("tokenizer", "bytes", "fitting_comes_again", says="an iterator of the same texts differ")
def reads_its_texts_twice(_):
    class Faulty(Shifted):
        @classmethod
        def fit(cls, texts, *options):
            return cls(sum(map(len, texts)) % 10 + 10 * len(list(texts)))

    return Faulty


@fault("tokenizer", "bytes", "encoding_comes_again", says="the second time")
def counts_its_texts(_):
    class Faulty(Shifted):
        def encode(self, text):
            self.shift += 1
            return super().encode(text)

    return Faulty


@fault("tokenizer", "bytes", "saved_tokenizers_are_the_same", says="saved differently")
def loses_a_number_when_saved(_):
    class Faulty(Shifted):
        @classmethod
        def from_dict(cls, data):
            return cls(data["shift"] + 1)

    return Faulty


@fault("tokenizer", "bytes", "saved_tokenizers_are_the_same", says="is damaged .*KeyError")
def saves_under_a_name_that_is_taken(_):
    class Faulty(Shifted):
        def to_dict(self):
            return {"name": str(self.shift)}

        @classmethod
        def from_dict(cls, data):
            return cls(int(data["name"]))

    return Faulty


# Datasets ---------------------------------------------------------------------------------------------------------------


def documents(**splits):
    """A dataset of these documents, or of what functions of the call's number return."""

    class Faulty:
        calls = 0

        def documents(self, split):
            Faulty.calls += 1
            found = splits[split]
            return found(Faulty.calls) if callable(found) else found

    return lambda _: Faulty


for wrong, says in {"": "is empty", b"x": "is a bytes"}.items():
    fault("dataset", "python-stdlib", "documents_are_text", says=says)(documents(train=["a", wrong], validation=["b"]))
fault("dataset", "python-stdlib", "documents_are_text", says="has no documents")(documents(train=["a"], validation=[]))
fault("dataset", "python-stdlib", "documents_come_again", says="another one the second time")(
    documents(train=lambda call: [f"{call}"], validation=["b"])
)
fault("dataset", "python-stdlib", "documents_come_again", says="built anew is another one")(
    documents(train=["a"], validation=lambda call: [f"{call > 5}"])
)
fault("dataset", "python-stdlib", "splits_are_apart", says="50% of the held-out text")(
    documents(train=["same", "mine"], validation=["same", "held"])
)
TEXT = "It is held out, and is within a text that is not."
fault("dataset", "python-stdlib", "splits_are_apart", says="100% of the held-out text")(
    documents(train=["first", f"Before. {TEXT} After."], validation=[TEXT])
)
