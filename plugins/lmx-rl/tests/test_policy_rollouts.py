"""What a policy is asked, where its completions end, and what becomes of their rewards."""

import attrs
import numpy as np
import pytest

from lmx_core import spec
from lmx_core.errors import DataError, LmxError, LmxWarning
from lmx_rl.policy.advantages import advantages
from lmx_rl.policy.groups import Asking, Drawing, Groups, seeds_of
from lmx_rl.policy.prompts import Epochs, order_of
from lmx_rl.policy.source import overlong
from lmx_rl.problems.curriculum import PassRateOptions
from lmx_rl.rewards.judge import Judge, RewardSpec

from .answered import Digits, Once, model_of, options_of, rollout_of, some_prompts, trainer_of

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("rewards")]


def test_a_completion_ends_with_its_stop_token():
    """Which counts as a token of it and is learned; one without has as many tokens as it may, and is cut off."""
    trainer = trainer_of(options_of(), batch_size=64)
    rollout = rollout_of(trainer)
    lengths = rollout.lengths
    assert set(lengths.tolist()) > {2, 6}
    for tokens, length in zip(rollout.tokens.tolist(), lengths.tolist(), strict=True):
        assert 9 not in tokens[: length - 1]
        assert tokens[length - 1] == 9 or length == 6
        assert not any(tokens[length:])
    figures = trainer.source._measured
    assert figures["completion_tokens"] == lengths.mean()
    assert figures["truncated"] == np.mean([9 not in row for row in rollout.tokens.tolist()])

    batch = trainer.source.batch(range(64), 0)
    order = trainer.source._order(0, 0)
    np.testing.assert_array_equal(batch["mask"].sum(-1), lengths[order])
    for row, (place, length) in enumerate(zip(rollout.prompts[order].tolist(), lengths[order].tolist(), strict=True)):
        prompt, start = trainer.source.prompts[place].tokens.tolist(), batch["starts"][row]
        assert batch["inputs"][row, : start + length].tolist() == [
            *prompt,
            *batch["targets"][row, : length - 1].tolist(),
        ]
        assert not batch["inputs"][row, start + length :].any()
    assert batch["inputs"].shape[1] == max(len(each.tokens) for each in trainer.source.prompts) + 6 - 1


def test_figures_of_a_rollout_by_hand():
    """Means over what is known; the spread, with n - 1, is the mean of the groups' own."""
    rewards = np.array([[1, 2, np.nan], [4, np.nan, 4]], np.float32)
    groups = Groups(
        prompts=np.arange(2, dtype=np.int32),
        tokens=np.zeros((2, 3, 6), np.int32),
        lengths=np.array([[1, 2, 3], [6, 6, 6]], np.int32),
        ended=np.array([[1, 1, 1], [0, 0, 1]], np.int32),
        failed=np.array([[0, 0, 0], [0, 1, 0]], np.int32),
        rewards=rewards,
        each=2 * rewards[..., None],
    )
    assert trainer_of().source._figures(groups) == {
        "reward": 2.75,
        "reward/even": 5.5,
        "completion_tokens": 4,
        "truncated": pytest.approx(1 / 3),
        "reward_std": pytest.approx(np.sqrt(0.5) / 2),
        "groups_without_signal": 0.5,
        "dropped_groups": 1,
    }


def test_what_was_cut_off_may_be_masked():
    trainer = trainer_of(options_of(mask_truncated=True), batch_size=64)
    rollout = rollout_of(trainer)
    ended = np.array([9 in row for row in rollout.tokens.tolist()])
    assert 0 < ended.sum() < 64
    np.testing.assert_array_equal(rollout.counts, ended)
    batch = trainer.source.batch(range(64), 0)
    np.testing.assert_array_equal(batch["mask"].any(-1), ended[trainer.source._order(0, 0)])


def test_the_penalty_of_long_completions():
    """0 up to the buffer, 1 at the end (eq. 13 of arXiv:2503.14476 with a minus), and it makes rewards differ."""
    assert overlong(np.arange(3, 11), 10, 4).tolist() == [0, 0, 0, 0, 0.25, 0.5, 0.75, 1]
    assert overlong(np.arange(8, 11), 10, 0).tolist() == [0, 0, 0]
    for how in ("group", "each_reward"):
        options = options_of("level", overlong_buffer=4, overlong_penalty=0.5, advantages=how)
        rollout = rollout_of(trainer_of(options, batch_size=64))
        penalised = 0.1 - 0.5 * np.clip((rollout.lengths.reshape(-1, 4) - 2) / 4, 0, 1)
        if how == "group":
            np.testing.assert_allclose(rollout.advantages.reshape(-1, 4), advantages(penalised), rtol=1e-4, atol=1e-6)
        longer = rollout.lengths.reshape(-1, 4) > rollout.lengths.reshape(-1, 4).mean(-1, keepdims=True) + 1
        assert (rollout.advantages.reshape(-1, 4)[longer] < 0).all()


def test_a_reward_that_fails_drops_its_group():
    """Which is named once and counted, has no part in the loss and in the advantages of others."""
    rewards = [RewardSpec(reward=spec("fails")), RewardSpec(reward=spec("even"), weight=0.5)]
    trainer = trainer_of(options_of(rewards, advantages="batch"), batch_size=64, max_steps=3)
    with pytest.warns(
        LmxWarning, match="reward 'fails' .*3 is too much.* left out, and counted as dropped_groups"
    ) as told:
        trainer.run()
    assert len(told) == 1
    rollout = trainer.source.rollout
    failed = (rollout.tokens[:, 0] == 3).reshape(-1, 4).any(-1)
    assert 0 < failed.sum() < 16
    np.testing.assert_array_equal(rollout.counts.reshape(-1, 4), np.repeat(~failed[:, None], 4, axis=1))
    assert (rollout.advantages.reshape(-1, 4)[failed] == 0).all()
    assert (rollout.advantages.reshape(-1, 4)[~failed] != 0).any()
    last = trainer.metrics.steps[-1]
    assert last["dropped_groups"] == failed.sum()
    assert last["groups_without_signal"] >= failed.mean()
    assert np.isfinite([last["reward"], last["reward/fails"], last["reward/even"], last["loss"]]).all()


def test_a_completion_of_which_nothing_is_known_has_no_advantage():
    """Nor a part in the mean of its group; it still counts as a completion."""
    rollout = rollout_of(trainer_of(options_of("known"), batch_size=128))
    empty = rollout.tokens[:, 0] == 9
    assert empty.any()
    assert (rollout.advantages[empty] == 0).all()
    assert rollout.counts.all()
    group = next(rows for rows in np.arange(128).reshape(-1, 4) if empty[rows].sum() == 1)
    shares = [
        np.mean([t % 2 == 0 for t in tokens[: n - (9 in tokens)]]) for tokens, n in _rows(rollout, group) if n > 1
    ]
    np.testing.assert_allclose(rollout.advantages[group][~empty[group]], advantages(np.array([shares]))[0], rtol=1e-4)


def test_a_rollout_that_no_reward_could_judge_is_told_once():
    """Otherwise a run whose rows lack an answer learns nothing and says nothing."""
    trainer = trainer_of(options_of("silent"), batch_size=16)
    with pytest.warns(LmxWarning, match=r"no reward could judge any of the 16 completions of step 1 \(silent\)"):
        rollout_of(trainer)
    trainer.source.rollout = None
    rollout = rollout_of(trainer)
    assert not rollout.advantages.any()
    for _ in range(trainer.config.max_bad_steps - 2):
        trainer.source.rollout = None
        rollout_of(trainer)
    trainer.source.rollout = None
    with pytest.raises(LmxError, match=f"It was so {trainer.config.max_bad_steps + 1} times in a row"):
        rollout_of(trainer)


def test_a_reward_that_ends_the_program_is_an_error():
    with pytest.raises(LmxError, match="a reward ended the program, with code 3: one that cannot judge returns None"):
        rollout_of(trainer_of(options_of("leaving"), batch_size=16))


def test_a_reward_beyond_float32_is_a_failure():
    """Ranks share rewards as float32: it is named, and its group left out, without a word of NumPy's."""
    trainer = trainer_of(options_of("vast"), batch_size=16)
    with pytest.warns(LmxWarning) as told:
        rollout = rollout_of(trainer)
    assert {each.category for each in told} == {LmxWarning}
    assert "'vast' and what is added to it are 1e+300, no float32" in str(told[0].message)
    assert not rollout.counts.any()


def _rows(rollout, rows):
    return [(rollout.tokens[row].tolist(), int(rollout.lengths[row])) for row in rows]


def test_groups_that_tell_nothing_are_drawn_again():
    """From other prompts, up to a limit; what is still missing is taken from them."""
    telling = [each.text for each in some_prompts()][5]
    Once.prompt = telling
    places = {}
    for rounds in (0, 1, 3):
        trainer = trainer_of(options_of("once", max_resamples=rounds), batch_size=16)
        rollout = rollout_of(trainer)
        asked = [trainer.source.prompts[place].text for place in rollout.prompts[::4].tolist()]
        places[rounds] = trainer.source.order.taken
        assert len(asked) == 4
        if telling in asked and rounds:
            assert asked[0] == telling
            assert rollout.advantages[:4].any()
        assert not rollout.advantages[4:].any()
    assert places[0] == 4
    assert places[1] in (7, 8)
    assert places[3] >= 12  # every prompt was asked
    assert telling in asked


def test_what_is_drawn_again_is_drawn_otherwise():
    """No seed is used twice, so that a prompt that comes again in a rollout is answered anew."""
    trainer, seeds = trainer_of(options_of("level", max_resamples=2), batch_size=16), []
    asking = trainer.source.asking
    plain = asking.groups
    asking.groups = lambda model, prompts, places, each: seeds.extend(each) or plain(model, prompts, places, each)
    rollout_of(trainer)
    assert len(seeds) == len({*seeds}) == 3 * 16


def test_prompts_come_in_epochs():
    order, rng = Epochs(5, seed=3), np.random.default_rng(0)
    found = order.choose(3, rng) + order.choose(9, rng)
    assert sorted(found[:5]) == sorted(found[5:10]) == [0, 1, 2, 3, 4]
    assert found[:5] != found[5:10]
    other = Epochs(5, seed=3)
    other.restore(order.saved())
    assert other.choose(4, rng) == order.choose(4, rng)
    assert Epochs(100, seed=4).choose(100, rng) != Epochs(100, seed=3).choose(100, rng)


def test_a_curriculum_chooses_prompts():
    """By their difficulty; what it has learned of them is in a checkpoint."""
    options = options_of(
        curriculum=PassRateOptions(window=16, raise_at=0.01, lower_at=0.0, earlier=0.0), max_new_tokens=6
    )
    trainer = trainer_of(options, batch_size=16)
    source = trainer.source
    easy = rollout_of(trainer)
    assert {source.prompts[place].about["difficulty"] for place in easy.prompts} == {0.0}
    hard = source._rolled(1)
    assert {source.prompts[place].about["difficulty"] for place in hard.prompts} == {1.0}
    assert source.saved()["order.level"].item() == 1
    plain = [attrs.evolve(each, about={}) for each in some_prompts()]
    with pytest.raises(DataError, match="prompt 1 of the training data has no `difficulty`"):
        order_of(plain, PassRateOptions(), 0)


def test_a_curriculum_draws_by_the_seed_and_the_rollout():
    options, found = options_of(curriculum=PassRateOptions(window=10_000)), []
    for seed in (0, 1):
        trainer = trainer_of(options, batch_size=16, seed=seed)
        found += [tuple(each.prompts.tolist()) for each in (rollout_of(trainer), trainer.source._rolled(1))]
    assert len({*found}) == 4


def test_each_completion_has_a_seed_of_its_own():
    """By the seed, the rollout, the group and its place there; whoever draws it."""
    seeds = seeds_of(0, 0, range(4), 3)
    assert len({*seeds, *seeds_of(1, 0, range(4), 3), *seeds_of(0, 1, range(4), 3)}) == 36
    assert seeds[3:9] == seeds_of(0, 0, range(1, 3), 3)


def test_rows_that_are_drawn_apart_are_the_same():
    """However many completions are drawn together."""
    model, prompts = model_of(), [*some_prompts()]
    judge = Judge([RewardSpec(reward=spec("even"))])
    found = []
    for rows in (4, 8, 1000):
        drawing = Drawing(repeats=4, max_tokens=6, stop=frozenset({9}), sampling={}, rows=rows)
        found.append(Asking(Digits(), judge, drawing).groups(model, prompts, range(5), seeds_of(0, 0, range(5), 4)))
    for other in found[1:]:
        np.testing.assert_array_equal(found[0].tokens, other.tokens)
        np.testing.assert_array_equal(found[0].rewards, other.rewards)


def test_each_pass_is_in_another_order():
    """All completions of a rollout come once in each pass."""
    trainer = trainer_of(options_of(inner_epochs=2, rollout_size=32), batch_size=8)
    orders = [trainer.source._order(0, again).tolist() for again in (0, 1)] + [trainer.source._order(1, 0).tolist()]
    assert all(sorted(order) == [*range(32)] for order in orders)
    assert orders[0] != orders[1] != orders[2] != orders[0]
    rollout_of(trainer)
    rows = [trainer.source.batch(range(start, start + 8), 0) for start in range(0, 64, 8)]
    passes = [sorted(np.concatenate([each["advantages"] for each in part]).tolist()) for part in (rows[:4], rows[4:])]
    assert passes[0] == passes[1] == sorted(trainer.source.rollout.advantages.tolist())
