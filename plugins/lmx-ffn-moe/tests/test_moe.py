"""What a mixture of experts promises beyond what every FFN does."""

import math
from collections import Counter
from pathlib import Path

import attrs
import mlx.core as mx
import pytest
from mlx.nn.utils import value_and_grad
from mlx.utils import tree_flatten

from lmx_core import BlockConfig, ConfigurableBlock, ModelConfig, build, generate, load_model, spec
from lmx_core.census import census
from lmx_core.errors import ConfigError
from lmx_core.objective import take_reports
from lmx_core.testing import SMALL, close, conformance, randomise
from lmx_core.train import main
from lmx_ffn_moe import MoE, MoEOptions
from lmx_ffn_moe.reference import moe as reference
from lmx_ffn_moe.router import Routing

HERE = Path(__file__).parent
FORMS = {
    "two of four": {"n_experts": 4},
    "one of three": {"n_experts": 3, "top_k": 1, "d_ff": 40},
    "all of three": {"n_experts": 3, "top_k": 3},
    "weights as they are": {"n_experts": 5, "top_k": 2, "renormalise": False},
    "with shared experts": {"n_experts": 4, "n_shared_experts": 2, "d_ff": 32},
}
forms = pytest.mark.parametrize("options", FORMS.values(), ids=FORMS)


def moe(bias=True, seed=0, **options):
    return randomise(MoE(attrs.evolve(SMALL, bias=bias), MoEOptions(**options)), seed)


def normal(*shape, seed=0):
    return mx.random.normal(shape, key=mx.random.key(seed))


@conformance("ffn.lmx-ffn-moe/moe", options=FORMS["two of four"], config={"bias": True})
def test_moe_keeps_the_promises_of_an_ffn(check):
    check()


@conformance("ffn.lmx-ffn-moe/moe", options=FORMS["one of three"])
def test_a_single_expert_keeps_them(check):
    check()


@conformance("ffn.lmx-ffn-moe/moe", options=FORMS["with shared experts"])
def test_shared_experts_keep_them(check):
    check()


@forms
@pytest.mark.parametrize("bias", [True, False])
def test_it_follows_the_equations(bias, options):
    """Sorted tokens through stacked matrices give what every expert on every token gives, gradients included."""
    module = moe(bias, **options)
    x, weights = normal(2, 33, 64), normal(2, 33, 64, seed=1)
    fast = value_and_grad(module, lambda: (module(x) * weights).sum())()[1]
    slow = value_and_grad(module, lambda: (reference(module, x) * weights).sum())()[1]
    close(module(x), reference(module, x))
    close(*(mx.grad(lambda x, of=of: (of(x) * weights).sum())(x) for of in (module, lambda x: reference(module, x))))
    for (name, ours), (_, theirs) in zip(tree_flatten(fast), tree_flatten(slow), strict=True):
        assert mx.abs(theirs).max() > 0, name
        close(ours, theirs)


def test_a_layer_of_mixtral():
    """The first layer of a Mixtral gives the numbers that transformers 5.23 computes with the same weights."""
    weights = mx.load(str(HERE / "mixtral.safetensors"))
    block = ConfigurableBlock(
        BlockConfig(attention="gqa", ffn=spec("moe", n_experts=5, top_k=2), norm="rms_norm", position="rope", bias=False,
                    d_model=48, n_heads=4, n_kv_heads=2, head_dim=16, d_ff=80, norm_eps=1e-3, rope_theta=1234.0)
    )  # fmt: skip
    theirs = {f"attention.{name}.weight": weights[f"self_attn.{name}.weight"] for name in
              ("q_proj", "k_proj", "v_proj", "o_proj")}  # fmt: skip
    for ours, name in {"gate": "w1", "down": "w2", "up": "w3"}.items():
        matrices = [weights[f"block_sparse_moe.experts.{i}.{name}.weight"] for i in range(5)]
        theirs[f"ffn.experts.{ours}.weight"] = mx.stack(matrices)
    theirs["ffn.router.weight"] = weights["block_sparse_moe.gate.weight"]
    theirs["layout.attention_norm.weight"] = weights["input_layernorm.weight"]
    theirs["layout.ffn_norm.weight"] = weights["post_attention_layernorm.weight"]
    block.load_weights(list(theirs.items()))

    close(block(weights["input"], "causal")[0], weights["output"], 2e-5)


@pytest.mark.parametrize("top_k", [1, 2])
def test_the_task_teaches_the_router(top_k):
    """The gradient of the output alone, without the auxiliary losses, reaches the router, of one chosen expert too."""
    module = moe(n_experts=4, top_k=top_k)
    gradient = value_and_grad(module, lambda x: (module(x) * normal(2, 9, 64, seed=1)).sum())(normal(2, 9, 64))[1]
    assert mx.abs(gradient["router"]["weight"]).max() > 1e-3


def test_no_token_is_dropped():
    """When all tokens choose one expert, all get it."""
    module, x = moe(n_experts=4, top_k=1), mx.abs(normal(1, 200, 64))
    module.router.weight = mx.zeros((4, 64)).at[2].add(1.0)
    close(module(x), reference(module, x))
    assert take_reports(module)[".dead_experts"].item() == 0.75


def routing(module, x):
    return module.router(x.flatten(0, 1))


def test_the_losses_are_the_papers():
    """Switch's balance loss and the z-loss of arXiv:2202.08906, summed in plain Python, token by token."""
    module, x = moe(n_experts=4, balance_loss=0.3, z_loss=0.2), normal(2, 9, 64)
    logits = (x.reshape(-1, 64) @ module.router.weight.T).tolist()
    counts, means, squares = Counter(), [0.0] * 4, 0.0
    for row in logits:
        total = sum(map(math.exp, row))
        squares += math.log(total) ** 2 / len(logits)
        means = [mean + math.exp(logit) / total / len(logits) for mean, logit in zip(means, row, strict=True)]
        counts.update(sorted(range(4), key=row.__getitem__)[-2:])
    loads = [counts[i] / counts.total() for i in range(4)]

    module(x)
    reports = take_reports(module)
    assert reports[".balance_loss"].item() == pytest.approx(
        0.3 * 4 * sum(load * mean for load, mean in zip(loads, means, strict=True)), rel=1e-5
    )
    assert reports[".z_loss"].item() == pytest.approx(0.2 * squares, rel=1e-5)
    entropy = -sum(load * math.log(load) for load in loads if load) / math.log(4)
    assert reports[".load_entropy"].item() == pytest.approx(entropy, rel=1e-5)
    assert reports[".dead_experts"].item() == sum(not load for load in loads) / 4


@pytest.mark.parametrize(("chosen", "imbalance", "entropy"), [([[0, 1], [2, 3]], 1, 1), ([[0, 1], [0, 1]], 1.7, 0.5)])
def test_statistics_of_even_and_uneven_loads(chosen, imbalance, entropy):
    """1 when every expert gets as much as any other."""
    probabilities = mx.array([[0.6, 0.25, 0.1, 0.05]] * 2) if imbalance > 1 else mx.full((2, 4), 0.25)
    found = Routing(
        logits=mx.log(probabilities), probabilities=probabilities, chosen=mx.array(chosen), weights=mx.ones((2, 2))
    )
    assert found.imbalance().item() == pytest.approx(imbalance)
    assert found.load_entropy().item() == pytest.approx(entropy)


def test_the_balance_loss_evens_the_load():
    """Steps down its gradient alone take a router that prefers one expert to one that uses all."""
    module, x = moe(n_experts=4, top_k=1, balance_loss=1.0, z_loss=0.0), normal(4, 64, 64) + 0.5
    module.router.weight = module.router.weight + mx.zeros((4, 64)).at[1].add(0.2)
    before = routing(module, x).load_entropy().item()

    def loss(x):
        module(x)
        return take_reports(module)[".balance_loss"]

    for _ in range(60):
        gradient = value_and_grad(module, loss)(x)[1]["router"]["weight"]
        module.router.weight = module.router.weight - 0.5 * gradient
    after = routing(module, x)
    assert before < 0.4
    assert after.load_entropy().item() > 0.9
    assert after.load().min().item() > 0.1


def test_the_router_computes_in_float32():
    """In bfloat16 a logit near another one would be the other's equal."""
    module = moe(n_experts=4)
    x = normal(1, 50, 64)
    module.set_dtype(mx.bfloat16)
    found = module.router(x[0].astype(mx.bfloat16))
    assert found.logits.dtype == found.weights.dtype == mx.float32
    close(found.logits, x[0].astype(mx.bfloat16).astype(mx.float32) @ module.router.weight.astype(mx.float32).T, 1e-6)


def test_more_choices_than_experts_are_refused():
    with pytest.raises(ConfigError, match="top_k=5 chooses more than there are: n_experts=4"):
        build("ffn", spec("moe", n_experts=4, top_k=5), SMALL)


def test_the_readme_trains(tmp_path, monkeypatch):
    """The README's example runs; its config is trained, its losses are in the metrics; it is saved, loaded, and generates."""
    monkeypatch.chdir(tmp_path)
    readme = (HERE.parent / "README.md").read_text()
    exec(readme.partition("```python\n")[2].partition("```")[0], {})
    text = readme.partition("```toml\n")[2].partition("```")[0]
    (tmp_path / "moe.toml").write_text(text)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("to be or not to be, that is the question\n" * 100)
    numbers = {"max_steps": 60, "learning_rate": 0.01, "batch_size": 4, "seq_len": 32, "warmup_steps": 2}
    job = main.started(tmp_path / "moe.toml", [f"train.{key}={value}" for key, value in numbers.items()], None, False)
    assert job.run()["val_bpb"] < 1, "untrained, a byte takes 8 bits"

    metrics = (job.path / "metrics.jsonl").read_text()
    for name in ("balance_loss", "z_loss", "load_entropy", "dead_experts"):
        assert f'"layers.1.ffn.{name}":' in metrics
    model = load_model(job.path)
    assert model.config.block.ffn.options["n_experts"] == 4
    assert bytes(generate(model, list(b"to be or"), max_tokens=24, temperature=0.0)) == b" not to be, that is the "


def test_a_token_uses_a_part_of_mixtral():
    """Mixtral 8x7B has 46.7 billion parameters, of which a token uses 12.9 (section 2.1 of arXiv:2401.04088)."""
    block = BlockConfig(attention="gqa", ffn=spec("moe", n_experts=8, top_k=2), norm="rms_norm", position="rope",
                        bias=False, d_model=4096, n_heads=32, n_kv_heads=8, d_ff=14_336)  # fmt: skip
    counted = census(ModelConfig(block=block, n_layers=32, vocab_size=32_000, tie_embeddings=False))
    expert = 3 * 4096 * 14_336
    assert (counted.total, counted.active) == (46_702_792_704, 12_879_925_248)
    assert counted.total - counted.active == 32 * 6 * expert
    norms, looked_up = 65 * 4096, 32_000 * 4096
    assert counted.flops_forward - counted.flops_attention == 2 * (counted.active - norms - looked_up)


@forms
def test_active_parameters_are_those_that_move_the_output(options):
    """One token's output has a gradient in as many experts as are counted, and in all of the router and what is shared."""
    module, x = moe(**options), normal(1, 1, 64)
    said = module.active_parameters()
    gradients = value_and_grad(module, lambda: module(x).sum())()[1]
    for path, gradient in tree_flatten(gradients["experts"]):
        assert (abs(gradient.reshape(len(gradient), -1)).max(axis=1) > 0).sum().item() == module.router.top_k
        assert said[f"experts.{path}"] == gradient.size // len(gradient) * module.router.top_k
    assert said.keys() == {f"experts.{path}" for path, _ in tree_flatten(module.experts.parameters())}
