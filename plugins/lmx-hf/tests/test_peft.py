"""Adapters that PEFT writes while the test runs, fused by lmx and by PEFT. Runs in `nox -s parity`."""

import itertools
import json

import mlx.core as mx
import pytest

from lmx_hf.adapters import fused
from lmx_hf.shards import tensors_of

torch = pytest.importorskip("torch", reason="the test writes adapters with PEFT")
peft = pytest.importorskip("peft", reason="the test writes adapters with PEFT")
safetensors = pytest.importorskip("safetensors.torch", reason="the test writes adapters with PEFT")
transformers = pytest.importorskip("transformers", reason="the test writes adapters with PEFT")

pytestmark = pytest.mark.filterwarnings("ignore")  # of torch, transformers and PEFT

SIZES = {"vocab_size": 48, "max_position_embeddings": 32, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None}
SIZES |= {"hidden_size": 16, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4, "num_hidden_layers": 2}
EXPERTS = {"moe_intermediate_size": 12, "num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2}
GPT2 = {
    "vocab_size": 48,
    "n_embd": 16,
    "n_head": 2,
    "n_layer": 2,
    "n_positions": 32,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
CONFIGS = {
    "llama": ("LlamaConfig", {**SIZES, "intermediate_size": 24}),
    "gpt2": ("GPT2Config", GPT2),
    "gpt_neox": ("GPTNeoXConfig", {**SIZES, "intermediate_size": 24}),
    "qwen3_moe": ("Qwen3MoeConfig", {**SIZES, **EXPERTS, "intermediate_size": 24}),
    "mixtral": ("MixtralConfig", {**SIZES, **EXPERTS, "intermediate_size": 12}),
    "gpt_oss": ("GptOssConfig", {**SIZES, **EXPERTS, "intermediate_size": 16}),
}
ATTENTION = ["q_proj", "v_proj"]
STACKS = ["experts.gate_up_proj", "experts.down_proj"]
CONV1D = ["c_attn", "c_proj", "c_fc"]


def model_of(kind, dtype, **more):
    torch.manual_seed(0)
    config, sizes = CONFIGS[kind]
    config = getattr(transformers, config)(**{**sizes, **more})
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.1)
    return model.eval()


def adapted(model, **options):
    """With numbers in all that an adapter trains, whole copies included."""
    options.setdefault("r", 4)
    options.setdefault("lora_alpha", 10)
    torch.manual_seed(1)
    model = peft.get_peft_model(model, peft.LoraConfig(**options))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "base_layer.weight" not in name:
                parameter.copy_(
                    torch.rand_like(parameter) + 0.5 if "magnitude" in name else torch.randn_like(parameter)
                )
    return model.eval()


@pytest.fixture
def both(tmp_path):
    """Logits and weights of PEFT's model, and of the one that transformers reads from what `fused` returns."""

    def run(kind, transposed=None, dtype=torch.float32, config=(), **options):
        base = model_of(kind, dtype, **dict(config))
        base.save_pretrained(tmp_path / "base")
        model = adapted(base, **options)
        model.save_pretrained(tmp_path / "adapter")
        tokens = torch.arange(2, 12)[None]
        with torch.no_grad():
            before = model(tokens).logits
        merged = model.merge_and_unload()
        tensors = fused(tensors_of(tmp_path / "base"), tmp_path / "adapter", transposed)
        return before, merged.state_dict(), *read_back(tmp_path, tensors, tokens)

    return run


def read_back(path, tensors, tokens):
    (path / "fused").mkdir()
    mx.save_safetensors(str(path / "fused" / "model.safetensors"), tensors, {"format": "pt"})
    config = json.loads((path / "base" / "config.json").read_text())
    if "lm_head.weight" in tensors:
        config["tie_word_embeddings"] = False
    (path / "fused" / "config.json").write_text(json.dumps(config))
    model = transformers.AutoModelForCausalLM.from_pretrained(path / "fused", attn_implementation="eager", dtype="auto")
    with torch.no_grad():
        return model.eval()(tokens).logits, model.state_dict()


CASES = {
    "scale": ("llama", {"target_modules": [*ATTENTION, "down_proj", "lm_head"]}),
    "rslora": ("llama", {"target_modules": ATTENTION, "use_rslora": True}),
    "patterns": (
        "llama",
        {
            "target_modules": [*ATTENTION, "up_proj"],
            "rank_pattern": {"^model.layers.0.self_attn.q_proj": 2, "up_proj": 3},
            "alpha_pattern": {r".*\.1\.self_attn\.v_proj": 32, "q_proj": 1},
        },
    ),
    "layers": ("llama", {"target_modules": ATTENTION, "layers_to_transform": [1]}),
    "dora": ("llama", {"target_modules": [*ATTENTION, "down_proj"], "use_dora": True}),
    "dora of an embedding": ("llama", {"target_modules": ["embed_tokens", "o_proj"], "use_dora": True}),
    "embedding": ("llama", {"target_modules": ["embed_tokens", "q_proj"]}),
    "square embedding": ("llama", {"target_modules": ["embed_tokens"], "config": {"vocab_size": 16}}),
    "modules to save": ("llama", {"target_modules": ATTENTION, "modules_to_save": ["lm_head", "embed_tokens", "norm"]}),
    "bias of all": ("llama", {"target_modules": ATTENTION, "bias": "all", "config": {"attention_bias": True}}),
    "bias of LoRA": ("llama", {"target_modules": ATTENTION, "bias": "lora_only", "config": {"attention_bias": True}}),
    "bias of lora_B": ("llama", {"target_modules": ATTENTION, "lora_bias": True, "config": {"attention_bias": True}}),
    "Conv1D": ("gpt2", {"target_modules": CONV1D}),
    "Conv1D told": ("gpt2", {"target_modules": CONV1D, "transposed": lambda name: ".c_" in name}),
    "Conv1D dora": ("gpt2", {"target_modules": CONV1D, "use_dora": True}),
    "renamed head": ("gpt_neox", {"target_modules": ["query_key_value", "lm_head"]}),
    "experts": ("qwen3_moe", {"target_modules": ["q_proj"], "target_parameters": STACKS}),
    "experts of other ranks": (
        "qwen3_moe",
        {"target_modules": [], "target_parameters": STACKS, "rank_pattern": {"experts.down_proj": 3}},
    ),
    "one of two": ("qwen3_moe", {"target_modules": [], "target_parameters": ["mlp.experts.down_proj", "gate.weight"]}),
    "renamed experts": ("mixtral", {"target_modules": ["k_proj"], "target_parameters": STACKS}),
    "turned experts": ("gpt_oss", {"target_modules": ["o_proj"], "target_parameters": STACKS}),
    "turned experts told": (
        "gpt_oss",
        {"target_modules": ["o_proj"], "target_parameters": STACKS, "transposed": lambda name: "experts" in name},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_as_peft_merges(name, both):
    """Weights are those of `merge_and_unload()`, and logits those of PEFT's model before that."""
    kind, options = CASES[name]

    before, merged, logits, weights = both(kind, **options)

    assert set(weights) == set(merged)
    for key, value in merged.items():
        torch.testing.assert_close(
            weights[key], value, rtol=2e-6, atol=2e-6, msg=lambda text, key=key: f"{key}: {text}"
        )
    torch.testing.assert_close(logits, before, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe"])
def test_adapters_of_older_transformers(kind, tmp_path):
    """They have an adapter for every expert, which PEFT joins, and the checkpoint still has them one by one."""
    base = model_of(kind, torch.float32)
    base.save_pretrained(tmp_path / "base")
    names = (
        ("block_sparse_moe", "w1", "w2", "w3") if kind == "mixtral" else ("mlp", "gate_proj", "down_proj", "up_proj")
    )
    tensors = {}
    for layer, expert, (i, name) in itertools.product(range(2), range(4), enumerate(names[1:])):
        into, out = (12, 16) if i == 1 else (16, 12)
        module = f"base_model.model.model.layers.{layer}.{names[0]}.experts.{expert}.{name}"
        tensors |= {f"{module}.lora_A.weight": torch.randn(2, into), f"{module}.lora_B.weight": torch.randn(out, 2)}
    (tmp_path / "adapter").mkdir()
    safetensors.save_file(tensors, tmp_path / "adapter" / "adapter_model.safetensors")
    peft.LoraConfig(r=2, lora_alpha=5, target_modules=list(names[1:])).save_pretrained(tmp_path / "adapter")

    merged = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").merge_and_unload().state_dict()
    tensors = fused(tensors_of(tmp_path / "base"), tmp_path / "adapter")
    _, weights = read_back(tmp_path, tensors, torch.arange(2, 12)[None])

    for key, value in merged.items():
        torch.testing.assert_close(weights[key], value, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_keeps_types(dtype, both):
    """A base of half precision stays so, and is rounded once, as PEFT does it whose adapters are float32."""
    _, merged, _, weights = both("llama", dtype=getattr(torch, dtype), target_modules=[*ATTENTION, "down_proj"])

    step = torch.finfo(getattr(torch, dtype)).eps
    for key, value in merged.items():
        assert weights[key].dtype == value.dtype
        torch.testing.assert_close(weights[key], value, rtol=step, atol=step)


TIED = {
    "the embedding": {"target_modules": ["embed_tokens", "q_proj"]},
    "the embedding with DoRA": {"target_modules": ["embed_tokens"], "use_dora": True},
    "the head": {"target_modules": ["lm_head", "q_proj"]},
    "both": {"target_modules": ["embed_tokens"], "ensure_weight_tying": True},
    "a new embedding": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    "a new head": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
}


@pytest.mark.parametrize("name", TIED)
def test_tied(name, both):
    """Where embedding and head are one tensor, the model computes what was trained, each with its own adapter."""
    before, _, logits, weights = both("llama", config={"tie_word_embeddings": True}, **TIED[name])

    assert not torch.equal(weights["lm_head.weight"], weights["model.embed_tokens.weight"]) or name == "both"
    torch.testing.assert_close(logits, before, rtol=2e-4, atol=2e-4)


def test_tied_gpt2(both):
    before, _, logits, _ = both("gpt2", target_modules=["wte", "c_attn"])

    torch.testing.assert_close(logits, before, rtol=2e-4, atol=2e-4)
