"""Prompts of different lengths, continued together."""

import attrs
import mlx.core as mx
import pytest
from mlx import nn

from lmx_core import (
    LanguageModel,
    ModelConfig,
    generate,
    generate_batch,
    make_config,
    spec,
    stream_batch,
    stream_generate,
)
from lmx_core.errors import ConfigError, LmxWarning
from lmx_core.testing import SMALL, randomise

PROMPTS = [[5, 6, 7, 8, 9], [3], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], [40, 41]]


def model(**changes):
    block = attrs.evolve(SMALL, **{"position": "rope", **changes})
    return randomise(LanguageModel(ModelConfig(block=block, vocab_size=50, n_layers=2))).eval()


MODELS = {
    "rope": {},
    "alibi": {"position": "alibi"},
    "t5": {"position": "t5"},
    "learned": {"position": "learned"},
    "sinusoidal": {"position": "sinusoidal"},
    "window": {"attention": spec("sliding_window", window=4)},
    "chunks": {"attention": spec("chunked", chunk_size=5)},
    "growing": {"attention": spec("gqa", query_growth=0.3, query_growth_every=4)},
    "nothing mixed": {"attention": "none", "position": "learned"},
    "dynamic": {"position": spec("rope", scaling=spec("dynamic", factor=4.0)), "max_seq_len": 10},
}


@pytest.mark.parametrize("changes", MODELS.values(), ids=MODELS)
def test_a_row_gets_what_it_gets_alone(changes):
    net = model(**changes)
    together = generate_batch(net, PROMPTS, max_tokens=12, temperature=0.0)
    assert together == [generate(net, prompt, max_tokens=12, temperature=0.0) for prompt in PROMPTS]


@pytest.mark.parametrize(
    "settings", [{}, {"top_k": 5}, {"top_p": 0.8}, {"min_p": 0.1}, {"repetition_penalty": 1.5}], ids=str
)
def test_chance_is_each_rows_own(settings):
    """Row i draws as it does alone with the seed `seed + i`, whatever the others do."""
    net = model()
    together = generate_batch(net, PROMPTS, max_tokens=12, seed=3, **settings)
    assert together == [generate(net, each, max_tokens=12, seed=3 + i, **settings) for i, each in enumerate(PROMPTS)]


def test_rows_that_finish_leave():
    """What is left runs in a smaller batch, and goes on as before."""
    net = model()
    alone = [generate(net, prompt, max_tokens=20, temperature=0.0) for prompt in PROMPTS]
    stop = {alone[2][4]}
    expected = [tokens[: next((i for i, each in enumerate(tokens) if each in stop), 20)] for tokens in alone]
    sizes = []
    call = net.layers[0].attention.q_proj

    class Counted(nn.Module):
        def __call__(self, x):
            sizes.append(x.shape[0])
            return call(x)

    net.layers[0].attention.q_proj = Counted()
    assert generate_batch(net, PROMPTS, max_tokens=20, stop=stop, temperature=0.0) == expected
    assert sizes[0] == 4
    assert sorted(sizes, reverse=True) == sizes
    assert sizes[-1] < 4


def test_steps_come_one_at_a_time():
    net = model()
    answers = generate_batch(net, PROMPTS, max_tokens=5, temperature=0.0)
    steps = list(stream_batch(net, PROMPTS, max_tokens=5, temperature=0.0))
    assert [[token for row, token in step] for step in steps] == [list(step) for step in zip(*answers, strict=True)]
    assert all([row for row, _ in step] == [0, 1, 2, 3] for step in steps)


@pytest.mark.parametrize("cache", [spec("quantised", bits=8), spec("rotating", max_size=6, keep=2), "full"], ids=str)
def test_any_kind_of_cache(cache):
    """In a batch as for each row by itself."""
    net = model()
    together = generate_batch(net, PROMPTS, max_tokens=12, temperature=0.0, cache=cache)
    alone = [generate_batch(net, [each], max_tokens=12, temperature=0.0, cache=cache)[0] for each in PROMPTS]
    assert together == alone


def test_a_long_prompt_is_read_in_pieces_beside_a_short_one():
    net = randomise(LanguageModel(make_config("llama", size="tiny", max_seq_len=2048))).eval()
    prompts = [mx.random.randint(0, 256, (700,), key=mx.random.key(1)).tolist(), [1, 2]]
    together = generate_batch(net, prompts, max_tokens=6, temperature=0.0)
    assert together == [generate(net, prompt, max_tokens=6, temperature=0.0) for prompt in prompts]


@pytest.mark.parametrize("interleaved", [False, True])
def test_an_answer_that_becomes_long_is_read_again(interleaved):
    """Beyond the horizon of `longrope` everything is placed otherwise: each token is that of one pass over all before it."""
    scaling = spec("longrope", short_factor=[1.0] * 8, long_factor=[2.0 + i for i in range(8)], original_max_seq_len=10)
    net = model(position=spec("rope", interleaved=interleaved, scaling=scaling))
    text = [5, 6, 7, 8, 9]
    for _ in range(10):
        text.append(int(net(mx.array([text]))[0][0, -1].argmax().item()))
    assert generate(net, text[:5], max_tokens=10, temperature=0.0) == text[5:]
    assert generate_batch(net, [text[:5], [1] * 9], max_tokens=10, temperature=0.0)[0] == text[5:]


@pytest.mark.parametrize(
    ("prompts", "says"),
    [
        ([], "give a list of prompts"),
        ([[1], []], "the prompt is empty"),
        ([[1], [99]], "token 99 of the prompt is outside"),
    ],
)
def test_prompts_that_are_none(prompts, says):
    with pytest.raises(ConfigError, match=says):
        generate_batch(model(), prompts)


def test_the_longest_row_must_fit():
    net = model(position="learned", max_seq_len=16)
    with pytest.raises(
        ConfigError, match="12 tokens and max_tokens=6 do not fit the model's max_seq_len=16; at most 5"
    ):
        generate_batch(net, PROMPTS, max_tokens=6)
    assert len(generate_batch(net, PROMPTS, max_tokens=5)[2]) == 5


class Own:
    """A memory that knows nothing of batches."""

    offset = 0
    state = ()
    nbytes = 0

    def checkpoint(self):
        return None

    def restore(self, mark):
        pass


def test_a_memory_that_cannot_join_says_so(plugins):
    class Mixer(nn.Module):
        takes = frozenset()

        def __init__(self, config):
            super().__init__()
            self.inner = nn.Linear(config.d_model, config.d_model)

        def make_cache(self):
            return Own()

        def __call__(self, x, mask=None, cache=None):
            return self.inner(x), cache

    plugins.register("attention", "own", Mixer)
    net = model(attention="own", position="none")
    assert len(generate(net, [1, 2], max_tokens=3)) == 3
    with pytest.raises(ConfigError, match="a Own cannot join a batch"):
        generate_batch(net, [[1, 2], [3]], max_tokens=3)
    with pytest.raises(ConfigError, match="attention 'own' remembers in a Own, which takes no padding"):
        net.make_cache(padding=[1, 0])


# Caches of one's own ----------------------------------------------------------------------------------------------------


def longrope(**changes):
    scaling = spec("longrope", short_factor=[1.0] * 8, long_factor=[2.0 + i for i in range(8)], original_max_seq_len=10)
    return model(position=spec("rope", scaling=scaling), **changes)


def test_a_cache_holds_no_token_before_it_is_given_out():
    """So that it can be used between two tokens of a stream, or after one that was left, whoever still holds the stream."""
    net = model()
    cache = net.make_cache()
    stream = stream_generate(net, PROMPTS[0], max_tokens=20, temperature=0.0, cache=cache)
    first = [next(stream) for _ in range(3)]
    assert cache[0].offset == len(PROMPTS[0]) + 2
    more = generate(net, first[-1:], max_tokens=4, temperature=0.0, cache=cache)
    del stream
    assert cache[0].offset == len(PROMPTS[0]) + 6
    assert [*first, *more] == generate(net, PROMPTS[0], max_tokens=7, temperature=0.0)


def test_an_empty_cache_of_ones_own_changes_nothing():
    """Nor when an answer becomes long; where the cache held tokens before, that is a warning."""
    net = longrope()
    expected = generate(net, PROMPTS[0], max_tokens=12, temperature=0.0)
    cache = net.make_cache()
    assert generate(net, PROMPTS[0], max_tokens=12, temperature=0.0, cache=cache) == expected
    assert cache[0].offset == len(PROMPTS[0]) + 11
    cache = net.make_cache()
    net(mx.array([PROMPTS[0]]), cache=cache)
    with pytest.warns(LmxWarning, match="beyond 10 tokens the model's positions place all"):
        generate(net, [7], max_tokens=12, temperature=0.0, cache=cache)


@pytest.mark.parametrize("scaling", ["longrope", "dynamic"])
def test_a_long_prompt_in_a_cache_of_ones_own_is_read_as_a_whole(scaling):
    factors = {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8, "original_max_seq_len": 600}
    options = factors if scaling == "longrope" else {"factor": 4.0}
    net = model(position=spec("rope", scaling=spec(scaling, **options)), max_seq_len=600)
    prompt = mx.random.randint(0, 50, (900,), key=mx.random.key(4)).tolist()
    answer = generate(net, prompt, max_tokens=6, temperature=0.0)
    assert generate(net, prompt, max_tokens=6, temperature=0.0, cache=net.make_cache()) == answer
    assert answer[0] == net(mx.array([prompt]), last_only=True)[0][0, -1].argmax().item()


def test_settings_that_there_are_not():
    net = model()
    with pytest.raises(ConfigError, match="no setting named 'temprature'. Did you mean 'temperature'"):
        generate(net, [1], temprature=1.0)


def test_a_penalty_follows_its_row():
    """When others have left, too."""
    net = model()
    settings = {"max_tokens": 16, "temperature": 0.0, "repetition_penalty": 3.0}
    alone = [generate(net, prompt, **settings) for prompt in PROMPTS]
    stop = {next(token for row in alone for token in row if not all(token in other for other in alone))}
    expected = [tokens[: next((i for i, each in enumerate(tokens) if each in stop), 16)] for tokens in alone]
    assert len({len(each) for each in expected}) > 1
    assert generate_batch(net, PROMPTS, stop=stop, **settings) == expected
