"""Several answers to each of many prompts, as each is alone."""

import attrs
import mlx.core as mx
import pytest
from mlx import nn

from lmx_core import LanguageModel, ModelConfig, generate, spec
from lmx_core.continuations import Continuation, continuations
from lmx_core.errors import ConfigError
from lmx_core.testing import SMALL, randomise

PROMPTS = [[5, 6, 7, 8, 9], [3], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]]
ALIKE = [[5, 6, 7], [3, 9, 1]]
SCALING = spec("longrope", short_factor=[1.0] * 8, long_factor=[2.0 + i for i in range(8)], original_max_seq_len=10)
MODELS = {
    "rope": {},
    "alibi": {"position": "alibi"},
    "learned": {"position": "learned"},
    "window": {"attention": spec("sliding_window", window=4)},
    "chunks": {"attention": spec("chunked", chunk_size=5)},
    "nothing mixed": {"attention": "none", "position": "learned"},
    "read again": {"position": spec("rope", scaling=SCALING)},
}


def model(**changes):
    block = attrs.evolve(SMALL, **{"position": "rope", **changes})
    return randomise(LanguageModel(ModelConfig(block=block, vocab_size=50, n_layers=2))).eval()


def alone(net, prompts, repeats, seeds, stop=(), **settings):
    """Each row by itself: `generate` without the stop tokens, cut after the first of them."""
    answers = []
    for i, seed in enumerate(seeds):
        tokens = generate(net, prompts[i // repeats], seed=seed, **settings)
        end = next((n for n, token in enumerate(tokens, 1) if token in stop), None)
        answers.append(Continuation(tokens[:end], end is not None))
    return answers


@pytest.mark.parametrize("prompts", [PROMPTS, ALIKE, PROMPTS[:1]], ids=["ragged", "of one length", "one"])
@pytest.mark.parametrize("changes", MODELS.values(), ids=MODELS)
def test_a_row_gets_what_it_gets_alone(changes, prompts):
    """With its own seed, whatever rows are beside it and whenever these end."""
    net, stop, seeds = model(**changes), set(range(6)), list(range(7, 7 + 3 * len(prompts)))
    found = continuations(net, prompts, repeats=3, max_tokens=12, stop=stop, seeds=seeds)
    assert found == alone(net, prompts, 3, seeds, stop, max_tokens=12)
    assert len({tuple(each.tokens) for each in found[:3]}) > 1


@pytest.mark.parametrize("cache", [spec("quantised", bits=8), spec("rotating", max_size=6, keep=2), "full"], ids=str)
def test_any_kind_of_cache(cache):
    """Two rows of a prompt go on as they do in a batch that holds the prompt twice."""
    net = model()
    settings = {"max_tokens": 12, "cache": cache, "seeds": [*range(6)]}
    twice = [prompt for prompt in PROMPTS for _ in range(2)]
    assert continuations(net, PROMPTS, repeats=2, **settings) == continuations(net, twice, **settings)


@pytest.mark.parametrize(
    "settings",
    [{"temperature": 0.5}, {"top_k": 5}, {"top_p": 0.8}, {"min_p": 0.1}, {"repetition_penalty": 3.0}],
    ids=str,
)
def test_sampling_is_as_alone(settings):
    """Also of rows that go on when others have left."""
    net, seeds, stop = model(), [4, 4, 9, 1, 2, 3], set(range(6))
    found = continuations(net, PROMPTS, repeats=2, max_tokens=12, stop=stop, seeds=seeds, **settings)
    assert found == alone(net, PROMPTS, 2, seeds, stop, max_tokens=12, **settings)
    assert len({len(each.tokens) for each in found}) > 1
    assert found[0] == found[1]  # of one prompt and one seed


def test_a_prompt_is_read_once_and_rows_that_ended_leave():
    net, sizes = model(), []
    call = net.layers[0].attention.q_proj

    class Counted(nn.Module):
        def __call__(self, x):
            sizes.append(x.shape[:2])
            return call(x)

    net.layers[0].attention.q_proj = Counted()
    found = continuations(net, ALIKE, repeats=8, max_tokens=20, stop=set(range(10)), seeds=range(16))
    assert sizes[:2] == [(2, 3), (16, 1)]
    lengths = [len(each.tokens) for each in found]
    # One more pass is on its way while the tokens of a step are read.
    running = [sum(length > step for length in lengths) for step in range(max(lengths))]
    assert [rows for rows, _ in sizes[1:]] == [16, *running[1:]][: len(sizes) - 1]
    assert len(set(running)) > 2


def test_the_stop_token_is_kept_and_a_cut_answer_has_not_ended():
    net = model()
    (free,) = continuations(net, PROMPTS[:1], max_tokens=8, temperature=0.0)
    assert free == Continuation(generate(net, PROMPTS[0], max_tokens=8, temperature=0.0), False)
    stop = free.tokens[4]
    cut = free.tokens.index(stop) + 1
    settings = {"stop": {stop}, "temperature": 0.0}
    assert continuations(net, PROMPTS[:1], max_tokens=8, **settings) == [Continuation(free.tokens[:cut], True)]
    assert continuations(net, PROMPTS[:1], max_tokens=cut, **settings) == [Continuation(free.tokens[:cut], True)]
    short = continuations(net, PROMPTS[:1], repeats=2, max_tokens=cut - 1, **settings)
    assert short == [Continuation(free.tokens[: cut - 1], False)] * 2


def test_without_seeds_rows_draw_by_chance():
    """From MLX's own stream of numbers, which `mx.random.seed` begins."""
    net, drawn = model(), []
    for seed in (1, 1, 2):
        mx.random.seed(seed)
        drawn.append(continuations(net, PROMPTS, repeats=4, max_tokens=6))
    assert drawn[0] == drawn[1] != drawn[2]
    assert len({tuple(each.tokens) for each in drawn[0][:4]}) > 1


def test_dropout_is_off_and_the_model_trains_on_afterwards():
    net = model(dropout=0.5).train()
    settings = {"max_tokens": 6, "temperature": 0.0}
    assert continuations(net, ALIKE, repeats=2, **settings) == alone(net, ALIKE, 2, range(4), **settings)
    assert net.training
    assert net.layers[0].training


@pytest.mark.parametrize(
    ("prompts", "changes", "says"),
    [
        ([], {}, "give a list of prompts"),
        ([[1], []], {}, "the prompt is empty"),
        ([[1]], {"repeats": 0}, "repeats=0: it must be at least 1"),
        ([[1]], {"max_tokens": 0}, "max_tokens=0: it must be at least 1"),
        ([[1], [2]], {"seeds": [1, 2]}, "2 seeds were given for 2 prompts with repeats=3; give one for each row, 6"),
        ([[1]], {"temprature": 1.0}, "no setting named 'temprature'. Did you mean 'temperature'"),
        ([[1], [2] * 14], {}, "14 tokens and max_tokens=4 do not fit the model's max_seq_len=16; at most 3"),
    ],
)
def test_what_cannot_be_continued(prompts, changes, says):
    net = model(position="learned", max_seq_len=16)
    with pytest.raises(ConfigError, match=says):
        continuations(net, prompts, **{"repeats": 3, "max_tokens": 4, **changes})


class Own:
    """A memory that knows nothing of batches."""

    offset = 0
    state = ()

    def checkpoint(self):
        return None

    def restore(self, mark):
        pass


def test_a_memory_without_rows_says_so(plugins):
    """One row needs none."""

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
    assert len(continuations(net, [[1, 2]], max_tokens=3)[0].tokens) == 3
    with pytest.raises(ConfigError, match="a Own cannot join a batch"):
        continuations(net, [[1, 2]], repeats=2, max_tokens=3)
