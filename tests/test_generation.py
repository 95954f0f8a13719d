"""The decode loop says what one pass over the whole text would say."""

import subprocess
import sys

import mlx.core as mx
import pytest

from lmx_core import LanguageModel, LmxError, decoding, generate, make_config, stream_generate
from lmx_core.testing import randomise

PROMPT = [5, 9, 100, 7, 7, 250]


@pytest.fixture(scope="module", params=["llama", "gpt"])
def model(request):
    return randomise(LanguageModel(make_config(request.param, size="tiny")))


def greedy_without_cache(model, prompt, n):
    tokens = list(prompt)
    for _ in range(n):
        logits, _ = model.eval()(mx.array([tokens]))
        tokens.append(int(mx.argmax(logits[0, -1]).item()))
    return tokens[len(prompt) :]


def test_greedy_equals_one_pass_each_time(model):
    """Cached decoding draws what a full pass over the text so far would draw."""
    assert generate(model, PROMPT, max_tokens=20, temperature=0.0) == greedy_without_cache(model, PROMPT, 20)


def test_a_long_prompt_runs_in_pieces(model, monkeypatch):
    """Prefill in chunks changes nothing."""
    expected = generate(model, PROMPT * 5, max_tokens=8, temperature=0.0)
    for size in (1, 7, 29, 30):
        monkeypatch.setattr(decoding, "PREFILL", size)
        assert generate(model, PROMPT * 5, max_tokens=8, temperature=0.0) == expected


def test_the_same_seed_draws_the_same_text(model):
    drawn = [generate(model, PROMPT, max_tokens=30, seed=seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_stop_token_ends_the_text(model):
    """The text ends before the first of the stop tokens."""
    free = generate(model, PROMPT, max_tokens=20, temperature=0.0)
    stopped = generate(model, PROMPT, max_tokens=20, temperature=0.0, stop={free[5]})
    assert stopped == free[: free.index(free[5])]


def test_a_cache_continues(model):
    """A second call goes on from the cache of the first: only the last token is still to be fed."""
    whole = generate(model, PROMPT, max_tokens=12, temperature=0.0)
    cache = model.make_cache()
    first = generate(model, PROMPT, max_tokens=5, temperature=0.0, cache=cache)
    assert cache[0].offset == len(PROMPT) + 4
    assert first + generate(model, first[-1:], max_tokens=7, temperature=0.0, cache=cache) == whole


def test_tokens_come_one_at_a_time(model):
    stream = stream_generate(model, PROMPT, max_tokens=1000 if model.longest() is None else 200, temperature=0.0)
    assert [next(stream) for _ in range(3)] == generate(model, PROMPT, max_tokens=3, temperature=0.0)


def test_a_repetition_penalty_looks_at_prompt_and_answer(model):
    """A huge penalty never draws a token twice, nor one of the prompt."""
    drawn = generate(model, PROMPT, max_tokens=40, temperature=0.0, repetition_penalty=1e6)
    assert len({*drawn, *PROMPT}) == len(drawn) + len(set(PROMPT))


def test_dropout_is_off_while_generating():
    model = randomise(LanguageModel(make_config("llama", size="tiny", dropout=0.5))).train()
    drawn = [generate(model, PROMPT, max_tokens=10, temperature=0.0) for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert model.training


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"prompt": []}, "prompt is empty"),
        ({"prompt": [5, 256]}, "token 256 .* vocabulary of 256"),
        ({"prompt": [-1]}, "token -1"),
        ({"prompt": [1], "max_tokens": 0}, "max_tokens=0"),
        ({"prompt": [1], "temperature": -1.0}, "temperature"),
    ],
)
def test_what_cannot_be_continued_is_refused_at_once(model, call, message):
    with pytest.raises(LmxError, match=message):
        stream_generate(model, **call)


def test_a_table_of_positions_bounds_the_text():
    """Learned positions end at max_seq_len: said before the first token, not after the last that fits."""
    model = LanguageModel(make_config("gpt", size="tiny", max_seq_len=16))
    assert len(generate(model, PROMPT, max_tokens=11)) == 11
    with pytest.raises(LmxError, match="max_seq_len=16; at most 11 can follow"):
        stream_generate(model, PROMPT, max_tokens=12)


@pytest.mark.parametrize("ended", ["by a stop token", "by its length", "by the reader"])
def test_a_cache_ends_before_the_last_token(model, ended):
    """However a stream ends, its cache holds all before the last token drawn."""
    free = generate(model, PROMPT, max_tokens=20, temperature=0.0)
    cache = model.make_cache()
    if ended == "by a stop token":
        n = free.index(free[5])
        generate(model, PROMPT, max_tokens=20, temperature=0.0, stop={free[5]}, cache=cache)
    elif ended == "by its length":
        n = len(generate(model, PROMPT, max_tokens=5, temperature=0.0, cache=cache)) - 1
    else:
        stream = stream_generate(model, PROMPT, max_tokens=20, temperature=0.0, cache=cache)
        n = len([next(stream) for _ in range(5)]) - 1
        stream.close()
    assert cache[0].offset == len(PROMPT) + n
    assert generate(model, free[n : n + 1], max_tokens=5, temperature=0.0, cache=cache) == free[n + 1 : n + 6]


def test_streams_do_not_disturb_each_other():
    """Two at once from one model in training mode: no dropout in either, and the mode as it was in between."""
    model = randomise(LanguageModel(make_config("llama", size="tiny", dropout=0.5))).train()
    alone = generate(model, PROMPT, max_tokens=10, temperature=0.0)
    first, second = (stream_generate(model, PROMPT, max_tokens=n, temperature=0.0) for n in (4, 10))
    mixed = [next(second), *list(first)[:0]]
    assert model.training
    assert mixed + list(second) == alone


def test_more_of_the_same_seed_begins_alike(model):
    drawn = [generate(model, PROMPT, max_tokens=n, seed=3) for n in (5, 12)]
    assert drawn[0] == drawn[1][:5]


def test_a_text_is_no_prompt():
    """In a process where no type is checked."""
    code = (
        "from lmx_core import LanguageModel, LmxError, decoding, generate, make_config\n"
        "try: generate(LanguageModel(make_config('llama', size='tiny')), 'def ')\n"
        "except LmxError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "the prompt is a text, 'def '; give its tokens: tokenizer.encode(...)"


def test_what_a_cache_holds_counts_towards_the_limit():
    model = LanguageModel(make_config("gpt", size="tiny", max_seq_len=16))
    cache = model.make_cache()
    generate(model, PROMPT, max_tokens=8, cache=cache)
    with pytest.raises(LmxError, match="at most 3 can follow"):
        stream_generate(model, [1], max_tokens=4, cache=cache)


def test_a_seed_draws_anew_for_each_token():
    """Where all tokens are equally likely, the text does not repeat one of them."""
    model = LanguageModel(make_config("llama", size="tiny", tie_embeddings=True))
    model.embed.weight = mx.zeros_like(model.embed.weight)
    assert len(set(generate(model, PROMPT, max_tokens=30, seed=0))) > 15
