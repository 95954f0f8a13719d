"""What a mixture of experts promises beyond what every FFN does."""

import math
import re
from collections import Counter
from pathlib import Path

import attrs
import mlx.core as mx
import pytest
from mlx import nn
from mlx.nn.utils import value_and_grad
from mlx.utils import tree_flatten

from lmx_core import (
    BlockConfig,
    ConfigurableBlock,
    LanguageModel,
    ModelConfig,
    build,
    generate,
    load_model,
    save_model,
    spec,
)
from lmx_core.census import census
from lmx_core.errors import ConfigError
from lmx_core.objective import take_reports
from lmx_core.quantised import packed_modules, quantise
from lmx_core.testing import SMALL, close, conformance, randomise
from lmx_core.train import main
from lmx_ffn_moe import LatentMoE, MoE, SharedMoE, dispatch
from lmx_ffn_moe.reference import moe as reference
from lmx_ffn_moe.router import Routing

HERE = Path(__file__).parent
FORMS = {
    "two of four": {"n_experts": 4},
    "one of three": {"n_experts": 3, "top_k": 1, "d_ff": 40},
    "all of three": {"n_experts": 3, "top_k": 3},
    "weights as they are": {"n_experts": 5, "top_k": 2, "renormalise": False, "routed_scaling": 1.7},
    "with shared experts": {"n_experts": 4, "n_shared_experts": 2, "d_ff": 32},
    "as in qwen": {"n_experts": 4, "n_shared_experts": 1, "shared_d_ff": 56, "shared_gate": True, "renormalise": False},
    "as in deepseek-v2": {"n_experts": 8, "top_k": 3, "n_groups": 4, "top_groups": 2, "renormalise": False},
    "as in deepseek-v3": {
        "n_experts": 8, "top_k": 3, "n_groups": 4, "top_groups": 2, "group_score": "top2", "router": "sigmoid",
        "correction_bias": True, "routed_scaling": 2.5,
    },
    "as in gpt-oss": {
        "n_experts": 4, "router": "topk_softmax", "router_bias": True, "activation": "quick_gelu", "clamp": 0.8,
        "up_shift": 1.0,
    },
    "as in llama 4": {"n_experts": 4, "top_k": 1, "router": "sigmoid", "weigh": "input", "n_shared_experts": 1},
    "as in phimoe": {"n_experts": 6, "router": "sparsemixer", "router_jitter": 0.3},
    "a softmax with a correction": {"n_experts": 4, "correction_bias": True, "activation": "gelu_tanh"},
    "one, renormalised": {"n_experts": 4, "top_k": 1, "router": "sigmoid", "renormalise": False},
}  # fmt: skip
forms = pytest.mark.parametrize("options", FORMS.values(), ids=FORMS)
KINDS = {"moe": MoE, "shared_moe": SharedMoE, "latent_moe": LatentMoE}


def moe(bias=True, seed=0, kind=MoE, **options):
    """With experts' biases, unless `bias` is false."""
    return randomise(kind(attrs.evolve(SMALL, bias=bias), kind.Options(**options)), seed).train()


def normal(*shape, seed=0):
    return mx.random.normal(shape, key=mx.random.key(seed))


@conformance("ffn.lmx-ffn-moe/moe", options=FORMS["two of four"], config={"bias": True})
def test_moe_keeps_the_promises_of_an_ffn(check):
    check()


@conformance("ffn.lmx-ffn-moe/moe", options=FORMS["one of three"])
def test_a_single_expert_keeps_them(check):
    check()


@conformance("ffn.lmx-ffn-moe/moe", options=FORMS["as in deepseek-v3"])
def test_groups_and_corrections_keep_them(check):
    check()


@conformance("ffn.lmx-ffn-moe/moe", options={**FORMS["as in gpt-oss"], "clamp": 3.0}, config={"bias": True})
def test_clamped_experts_keep_them(check):
    check()


@conformance("ffn.lmx-ffn-moe/shared_moe", options={"n_experts": 4, "shared_gate": True})
def test_shared_moe_keeps_them(check):
    check()


@conformance("ffn.lmx-ffn-moe/latent_moe", options={"n_experts": 4, "n_shared_experts": 1, "latent_dim": 32})
def test_latent_moe_keeps_them(check):
    check()


@forms
@pytest.mark.parametrize("bias", [True, False])
def test_it_follows_the_equations(bias, options):
    """Sorted tokens through stacked matrices give what every expert on every token gives, gradients included."""
    follows(moe(bias, **options))


@pytest.mark.parametrize("kind", ["shared_moe", "latent_moe"])
def test_its_kinds_follow_them(kind):
    follows(moe(kind=KINDS[kind], n_experts=4, n_shared_experts=1))


@pytest.mark.parametrize("length", [1, 7, 8, 9, 150])
def test_however_many_tokens_share_an_expert(length):
    """Choices are sorted from some number on, and rows then go in groups of more than one."""
    follows(moe(n_experts=3), length)


def follows(module, length=33):
    x, weights = normal(2, length, 64), normal(2, length, 64, seed=1)
    fast = value_and_grad(module, lambda: (module(x) * weights).sum())()[1]
    slow = value_and_grad(module, lambda: (reference(module, x) * weights).sum())()[1]
    close(module(x), reference(module, x))
    close(*(mx.grad(lambda x, of=of: (of(x) * weights).sum())(x) for of in (module, lambda x: reference(module, x))))
    for (name, ours), (_, theirs) in zip(tree_flatten(fast), tree_flatten(slow), strict=True):
        assert length < 9 or mx.abs(theirs).max() > 0, name
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
    assert after.load.min().item() > 0.1


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
        assert (abs(gradient.reshape(len(gradient), -1)).max(axis=1) > 0).sum().item() == module.options.top_k
        assert said[f"experts.{path}"] == gradient.size // len(gradient) * module.options.top_k
    assert said.keys() == {f"experts.{path}" for path, _ in tree_flatten(module.experts.parameters())}


@pytest.mark.parametrize("rows", [1, 2, 8, 64])
def test_any_number_of_rows_may_go_together(rows, monkeypatch):
    """One by one, as on a GPU, and in groups larger than what an expert gets."""
    monkeypatch.setattr(dispatch, "_rows", lambda choices, n_experts: rows)
    follows(moe(n_experts=5), 100)


def test_groups_lie_in_the_order_of_experts():
    """Every choice has a row of its own in a group of its expert, and groups follow each other by their experts."""
    chosen = mx.random.randint(0, 6, (300, 2), key=mx.random.key(3))
    chosen = mx.where(chosen == 4, 5, chosen)  # one gets none
    to = dispatch.dispatch(chosen, 6)
    assert to.rows > 1
    places, flat = to.place.tolist(), chosen.flatten().tolist()
    assert len(set(places)) == len(flat)
    for choice, (place, expert) in enumerate(zip(places, flat, strict=True)):
        assert to.experts[place // to.rows].item() == expert
        assert to.source[place].item() == choice
    experts = to.experts.tolist()
    assert sorted(experts) == experts
    assert 4 not in experts


@pytest.mark.parametrize("tokens", [3, 200])
@pytest.mark.parametrize(("group_size", "bits", "mode"), [(32, 8, "affine"), (64, 4, "affine"), (32, 4, "mxfp4")])
def test_quantised_experts_are_those_of_the_rounded_weights(tokens, group_size, bits, mode):
    """`gather_qmm` on packed matrices, and the same module with the weights that these stand for."""
    module, twin = (moe(n_experts=4, d_ff=128) for _ in range(2))
    nn.quantize(module.experts, group_size=group_size, bits=bits, mode=mode)
    for name in ("gate", "up", "down"):
        packed = module.experts[name]
        assert packed.weight.dtype == mx.uint32
        twin.experts[name].weight = mx.dequantize(
            packed.weight, packed.scales, packed.get("biases"), group_size=group_size, bits=bits, mode=mode
        )
    x = normal(1, tokens, 64)
    close(module(x), twin(x), 1e-4)
    assert not tree_flatten(module.experts.trainable_parameters())
    close(*(mx.grad(lambda x, of=of: (of(x) ** 2).sum())(x) for of in (module, twin)), 1e-3)


@pytest.mark.parametrize("mode", ["affine", "mxfp4", "mxfp8", "nvfp4"])
def test_a_packed_mixture_is_saved_and_read(tmp_path, mode):
    """Experts are packed, the router that chooses among them is not; the tensors say so."""
    block = attrs.evolve(SMALL, position="rope", d_ff=128, ffn=spec("moe", n_experts=4))
    net = randomise(LanguageModel(ModelConfig(block=block, n_layers=2, vocab_size=50))).eval()
    done = quantise(net, mode=mode)
    assert {"layers.0.ffn.experts.gate", "layers.1.ffn.experts.down", "embed"} < done.packed.keys()
    assert done.dense == {f"layers.{i}.ffn.router": "Router has no packed form" for i in range(2)}
    assert net.count_parameters() == census(net.config).total
    save_model(net, tmp_path)
    again, tokens = load_model(tmp_path), mx.arange(24).reshape(2, 12)
    assert packed_modules(again) == done.packed
    assert mx.array_equal(net(tokens)[0], again(tokens)[0])
    cache = again.make_cache()
    steps = [again(tokens[:, i : i + 1], cache=cache)[0] for i in range(12)]
    close(mx.concatenate(steps, axis=1), net(tokens)[0], 1e-3)


@pytest.mark.parametrize("tokens", [3, 100])
def test_half_precision_stays_near(tokens):
    module, x = moe(n_experts=4), normal(1, tokens, 64)
    whole = module(x)
    chosen = module.router(x[0]).chosen
    module.set_dtype(mx.bfloat16)
    half = module(x.astype(mx.bfloat16))
    assert half.dtype == mx.bfloat16
    same = (mx.sort(module.router(x[0].astype(mx.bfloat16)).chosen) == mx.sort(chosen)).all(axis=-1)
    assert same.mean().item() > 0.9  # rounded, another expert may be the better one
    close(mx.where(same[None, :, None], half.astype(mx.float32), 0), mx.where(same[None, :, None], whole, 0), 0.05)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n_experts": 6, "n_groups": 4}, "n_experts=6 is not a multiple of n_groups=4"),
        ({"n_experts": 8, "n_groups": 2, "top_groups": 3}, "top_groups=3 chooses more than there are: n_groups=2"),
        ({"n_experts": 8, "n_groups": 4, "top_k": 3}, "top_k=3 chooses more than there are: 1 groups of 2"),
        ({"n_experts": 4, "n_groups": 4, "top_k": 1, "group_score": "top2"}, "n_groups=4 leaves one"),
        ({"router": "sparsemixer", "top_k": 3}, "it takes top_k = 2"),
        ({"router": "topk_softmax", "renormalise": False}, 'renormalise = false needs "softmax"'),
        ({"router": "softmx"}, "router: expected 'softmax' or"),
        ({"shared_gate": True}, "are those of shared experts, but n_shared_experts=0"),
        ({"shared_d_ff": 12}, "are those of shared experts, but n_shared_experts=0"),
        ({"balance_loss": math.inf}, "balance_loss: expected a finite number, got inf"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, said):
    with pytest.raises(ConfigError, match=said):
        build("ffn", spec("moe", **options), SMALL)


def test_without_a_choice_of_its_own_the_only_expert_is_not_renormalised():
    """Its weight would be 1 whatever the router says; who asks for that gets it."""
    x = normal(1, 9, 64)
    for renormalise, even in ((None, False), (True, True)):
        weights = moe(n_experts=4, top_k=1, renormalise=renormalise).router(x[0]).weights
        assert (abs(weights - 1).max().item() < 1e-6) == even


def test_a_latent_moe_has_smaller_experts():
    """A quarter of the width unless said otherwise: a quarter of the parameters, and as much less for a token to use."""
    config, few, many = attrs.evolve(SMALL, bias=False), moe(bias=False), moe(bias=False, kind=LatentMoE)
    for module, width in ((few, config.d_model), (many, config.d_model // 4)):
        assert module.experts.gate.weight.shape == (8, config.d_ff, width)
        assert sum(module.active_parameters().values()) == 2 * 3 * config.d_ff * width


def test_the_readme_lists_every_option_with_its_default():
    text = (HERE.parent / "README.md").read_text().partition("| option |")[2].partition("\n\n")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (\S+) \|", text, re.M))
    fields = {field.name: field.default for field in attrs.fields(MoE.Options)}
    assert rows == {name: written(value) for name, value in fields.items()}


def written(value):
    if isinstance(value, str):
        return f'`"{value}"`'
    return str(value).lower()


def test_saturated_logits_still_differ():
    """A sigmoid of 20 is 1 in float32, as one of 40 is: logits decide."""
    router = moe(n_experts=4, top_k=1, router="sigmoid", renormalise=False).router
    router.weight = mx.array([[18.0], [19.0], [40.0], [25.0]])
    assert router(mx.ones((1, 1))).chosen.item() == 2


def test_groups_of_negative_scores_stay_out():
    """What is not chosen from is not 0: a correction may make every score of the chosen groups negative."""
    router = moe(**{**FORMS["as in deepseek-v3"], "top_groups": 1, "top_k": 2}).router
    router.correction = mx.array([-3.0, -3.0, -9.0, -9.0, -9.0, -9.0, -9.0, -9.0])
    assert (router(normal(50, 64)).chosen < 2).all().item()


def test_statistics_of_an_uneven_sigmoid_router():
    """Probabilities are scores divided by their sum; the largest load is counted in mean ones."""
    module, x = moe(n_experts=4, top_k=1, router="sigmoid", balance_loss=1.0), mx.abs(normal(1, 64, 64))
    module.router.weight = mx.zeros((4, 64)).at[2].add(1.0)
    module(x)
    reports = take_reports(module)
    scores = 1 / (1 + mx.exp(-x[0].sum(axis=-1)))
    assert reports[".max_load"].item() == 4
    assert reports[".balance_loss"].item() == pytest.approx((4 * scores / (scores + 1.5)).mean().item(), rel=1e-5)


def test_shared_experts_have_their_width_and_the_activation_of_the_others():
    module = moe(n_experts=4, d_ff=32, n_shared_experts=2, shared_d_ff=24, activation="relu2")
    assert module.shared.up.weight.shape == (24, 64)
    assert moe(n_experts=4, d_ff=32, n_shared_experts=2).shared.up.weight.shape == (64, 64)
    x, shared = normal(3, 5, 64), module.shared
    hidden = mx.maximum(x @ shared.gate.weight.T + shared.gate.bias, 0) ** 2 * shared.up(x)
    close(shared(x), hidden @ shared.down.weight.T + shared.down.bias)
    assert moe(kind=LatentMoE, latent_dim=20).experts.gate.weight.shape[-1] == 20


def test_no_tokens_give_nothing():
    module = moe()
    module.eval()
    assert module(mx.zeros((0, 5, 64))).shape == (0, 5, 64)
