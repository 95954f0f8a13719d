"""What `load_from_hf` reads, what it refuses, and what it says then."""

import json
import pickle
import re

import attrs
import mlx.core as mx
import pytest

from lmx_core import LanguageModel, ModelConfig, make_config, spec
from lmx_core.errors import CheckpointError, ComponentError, ConfigError, LmxError, LmxWarning
from lmx_core.factories import with_block
from lmx_core.model import flat_parameters
from lmx_core.opening import open_model
from lmx_core.quantised import Packing, packed_modules
from lmx_core.registry import registry
from lmx_core.testing import randomise
from lmx_hf import Family, Rule, config_from_hf, export, load_from_hf
from lmx_hf.alike import differences
from lmx_hf.families import llama
from lmx_hf.save import fitting

pytestmark = pytest.mark.once

WHOLE = re.compile(r"^(model\.language_model|language_model\.model|model)\.")
TOKENS = mx.array([[3, 1, 4, 1, 5, 9, 2, 6]])
LLAMA = {
    "model_type": "llama",
    "vocab_size": 64,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 3,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}


@pytest.fixture
def model():
    return randomise(LanguageModel(config_from_hf(LLAMA)))


@pytest.fixture
def folder(model, tmp_path):
    """A llama as one downloads it."""
    export(model, tmp_path / "llama")
    return tmp_path / "llama"


def changed(folder, change):
    """The folder with other tensors."""
    file = folder / "model.safetensors"
    tensors = dict(mx.load(str(file)))
    mx.eval(tensors)
    change(tensors)
    mx.save_safetensors(str(file), tensors)
    return folder


def configured(folder, **keys):
    """The folder with other keys in its config; those that are None are taken out."""
    file = folder / "config.json"
    data = {**json.loads(file.read_text()), **keys}
    file.write_text(json.dumps({key: value for key, value in data.items() if value is not None}))
    return folder


def same(one, other):
    ours, theirs = flat_parameters(one), flat_parameters(other)
    return ours.keys() == theirs.keys() and all(mx.array_equal(ours[name], theirs[name]).item() for name in ours)


def test_a_folder_without_a_tokenizer_has_none(folder, model):
    again, tokenizer = load_from_hf(folder)
    assert tokenizer is None
    assert same(again, model)
    assert not again.training


def test_shards_may_lie_anywhere(model, tmp_path):
    """Tensors of one layer in different files, in no order, under names that only the index tells."""
    export(model, tmp_path / "one", shard_size=2**30)
    tensors = list(mx.load(str(tmp_path / "one/model.safetensors")).items())
    places = {}
    (tmp_path / "many").mkdir()
    for i in range(3):
        part = dict(tensors[i::3][::-1])
        mx.save_safetensors(str(tmp_path / f"many/part{i}.safetensors"), part)
        places |= dict.fromkeys(part, f"part{i}.safetensors")
    (tmp_path / "many/config.json").write_text((tmp_path / "one/config.json").read_text())
    (tmp_path / "many/model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert same(load_from_hf(tmp_path / "many")[0], model)


def test_a_file_says_what_programs_ask_for(folder, model, tmp_path):
    """transformers 4 insists on the format; without an id of padding it takes its class's, which may be none of ours."""
    head = (folder / "model.safetensors").read_bytes()
    head = json.loads(head[8 : 8 + int.from_bytes(head[:8], "little")])
    assert head["__metadata__"] == {"format": "pt"}
    assert json.loads((folder / "config.json").read_text())["pad_token_id"] is None
    export(model, tmp_path / "many", shard_size=1)
    assert all(mx.load(str(file)) for file in tmp_path.glob("many/*.safetensors"))


def test_models_that_differ_a_little_differ(model):
    """A base that is off by a thousandth is another rope."""
    near = with_block(model.config, rope_theta=model.config.block.rope_theta * 1.001)
    assert differences(model.config, near) == [f"block rope_theta: 10000.0 and {1.001 * 10_000.0}"]
    assert not differences(model.config, with_block(model.config, rope_theta=10_000.0000001))


def test_an_exported_model_of_several_files_is_read_again(model, tmp_path):
    export(model, tmp_path / "many", shard_size=10_000)
    files = sorted(tmp_path.glob("many/*.safetensors"))
    assert len(files) > 3
    assert all(file.stat().st_size < 20_000 for file in files)
    index = json.loads((tmp_path / "many/model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(weight.nbytes for weight in flat_parameters(model).values())
    assert same(load_from_hf(tmp_path / "many")[0], model)


@pytest.mark.parametrize("stored", ["float32", "float16", "bfloat16"])
def test_the_precision_is_the_checkpoints_unless_given(model, tmp_path, stored):
    model.set_dtype(getattr(mx, stored))
    export(model, tmp_path / "half")
    assert json.loads((tmp_path / "half/config.json").read_text())["torch_dtype"] == stored
    assert same(load_from_hf(tmp_path / "half")[0], model)
    for wanted in ("float32", "float16", "bfloat16"):
        again, _ = load_from_hf(tmp_path / "half", dtype=wanted)
        assert {weight.dtype for weight in flat_parameters(again).values()} == {getattr(mx, wanted)}


def test_the_tensors_say_whether_the_head_is_tied(folder, model):
    """Whatever the config says."""
    configured(folder, tie_word_embeddings=True)
    assert same(load_from_hf(folder)[0], model)
    changed(folder, lambda tensors: tensors.pop("lm_head.weight"))
    configured(folder, tie_word_embeddings=False)
    assert load_from_hf(folder)[0].config.tie_embeddings


def test_what_lies_beside_the_model_is_left_alone(folder, model):
    changed(
        folder,
        lambda tensors: tensors.update(
            {
                "model.layers.0.self_attn.rotary_emb.inv_freq": mx.zeros((4,)),
                "vision_tower.conv.weight": mx.zeros((2, 2)),
            }
        ),
    )
    assert same(load_from_hf(folder)[0], model)


def test_the_text_part_of_a_composite_is_read(folder, model):
    """With any of the prefixes that are found."""
    for prefix in ("language_model.model.", "model.language_model."):
        changed(
            folder,
            lambda tensors, prefix=prefix: [
                tensors.update({WHOLE.sub(prefix, name): tensors.pop(name)})
                for name in list(tensors)
                if WHOLE.match(name)
            ],
        )
        data = json.loads((folder / "config.json").read_text())
        whole = {"model_type": "mistral3", "text_config": data.get("text_config", {**data, "sliding_window": None})}
        whole["text_config"].pop("model_type", None)
        (folder / "config.json").write_text(json.dumps(whole))
        again, _ = load_from_hf(folder)
        assert again.source.model_type == "mistral"
        assert mx.allclose(again(TOKENS)[0], model(TOKENS)[0]).item()


def test_weights_are_packed_as_they_are_read(folder, model):
    again, _ = load_from_hf(folder, quantize={"bits": 8, "group_size": 32, "rules": {"head": False}})
    packed = packed_modules(again)
    assert packed["layers.0.attention.q_proj"] == Packing(8, 32)
    assert "head" not in packed
    far = mx.abs(again(TOKENS)[0] - model(TOKENS)[0]).max() / mx.abs(model(TOKENS)[0]).max()
    assert 0 < far.item() < 0.1


def test_everything_that_does_not_fit_is_in_one_list(folder):
    """By cause, and a line for all layers."""

    def change(tensors):
        for i in range(3):
            del tensors[f"model.layers.{i}.mlp.up_proj.weight"]
        tensors["model.layers.0.self_attn.q_proj.lora"] = mx.zeros((2,))
        tensors["model.norm.weight"] = mx.zeros((31,))

    with pytest.raises(CheckpointError) as refused:
        load_from_hf(changed(folder, change))
    said = str(refused.value).splitlines()
    assert said[0].endswith("are not those that its config.json asks for:")
    assert said[1:-1] == [
        "  missing (3):",
        "    layers.N.ffn.up.weight (3 of them)",
        "  unexpected (1):",
        "    layers.0.self_attn.q_proj.lora",
        "  of another shape (1):",
        "    norm.weight (31,), the config asks for (32,)",
    ]


def test_a_fused_tensor_of_the_wrong_size_is_named(tmp_path):
    model = randomise(LanguageModel(make_config("phi3", size="tiny")))
    export(model, tmp_path / "phi", family="phi3")
    changed(
        tmp_path / "phi",
        lambda tensors: tensors.update({"model.layers.0.self_attn.qkv_proj.weight": mx.zeros((7, 64))}),
    )
    with pytest.raises(
        CheckpointError, match=r"of another shape \(3\)[^$]*qkv_proj.weight \(7, 64\): has 7 rows"
    ) as told:
        load_from_hf(tmp_path / "phi")
    assert "missing (" not in str(told.value)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "cannot read .*config.json: No such file"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": '), "config.json is damaged"),
        (lambda folder: (folder / "config.json").write_text("[]"), "config.json is damaged"),
        (lambda folder: (folder / "config.json").write_text("{}"), "has no model_type"),
        (lambda folder: configured(folder, model_type="lama"), "model_type 'lama'.*Did you mean 'llama'"),
        (
            lambda folder: configured(
                folder, model_type="mystery", auto_map={"AutoModelForCausalLM": "modeling.Model"}
            ),
            "'mystery'.*code of its own, which lmx does not run",
        ),
        (lambda folder: configured(folder, hidden_act="tanh"), "hidden_act is 'tanh'"),
        (lambda folder: configured(folder, rope_scaling={"type": "spiral", "factor": 2.0}), "scaled by 'spiral'"),
        (lambda folder: configured(folder, num_attention_heads=5), "n_heads=5 is not a multiple"),
        (lambda folder: (folder / "model.safetensors").unlink(), "holds no weights"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"<html>"), "cannot be read"),
        (lambda folder: cut(folder / "model.safetensors", 100), "its head asks for"),
        (lambda folder: cut(folder / "model.safetensors", 0), "cannot be read"),
        (lambda folder: pickled(folder), "pickle.*safe_serialization=True"),
        (
            lambda folder: (folder / "model.safetensors.index.json").write_text(
                '{"weight_map": {"a": "gone.safetensors"}}'
            ),
            "names gone.safetensors, not there",
        ),
        (
            lambda folder: (folder / "model.safetensors.index.json").write_text(
                '{"weight_map": {"a": "../x.safetensors"}}'
            ),
            "names files outside its folder",
        ),
        (lambda folder: (folder / "model.safetensors.index.json").write_text("{"), "index.json is damaged"),
    ],
)
def test_a_checkpoint_that_cannot_be_read_says_why(folder, spoil, message):
    spoil(folder)
    with pytest.raises(LmxError, match=f"(?s){message}"):
        load_from_hf(folder)


def cut(file, less):
    data = file.read_bytes()
    file.write_bytes(data[:-less] if less else b"")


def pickled(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap()))


class Trap:
    def __reduce__(self):
        return pytest.fail, ("a pickle was read",)


def test_a_dtype_that_is_none_is_refused(folder):
    with pytest.raises(ConfigError, match="dtype='float64'"):
        load_from_hf(folder, dtype="float64")


def test_anyone_can_add_a_family(folder, model):
    """One whose `model_type` transformers does not know, with a rule of its own."""
    mine = llama.family(
        "acme",
        "AcmeForCausalLM",
        llama.llama,
        llama.llama_keys,
        [Rule("head_of_acme.{p}", "head.{p}"), *llama.RULES],
        factory="llama",
        defaults={"intermediate_size": 48, "rope_parameters": {"rope_theta": 10_000.0}},
    )
    assert isinstance(mine, Family)
    registry("loader").register("acme")(mine)
    try:
        configured(folder, model_type="acme", intermediate_size=None)
        changed(folder, lambda tensors: tensors.update(head_of_acme=tensors.pop("lm_head.weight")) or renamed(tensors))
        again, _ = load_from_hf(folder)
        assert same(again, model)
        export(again, folder.with_name("again"))
        assert "model.head_of_acme.weight" in mx.load(str(folder.with_name("again") / "model.safetensors"))
        assert json.loads((folder.with_name("again") / "config.json").read_text())["model_type"] == "acme"
        assert same(load_from_hf(folder.with_name("again"))[0], model)
    finally:
        registry("loader").unregister("acme")


def renamed(tensors):
    tensors["head_of_acme.weight"] = tensors.pop("head_of_acme")


def test_a_config_that_leaves_out_defaults_is_completed():
    """A bare config is LLaMA 7B; `head_dim` and key/value heads are made of other keys."""
    config = config_from_hf({"model_type": "llama"})
    assert (config.block.d_model, config.block.n_kv_heads, config.n_layers) == (4096, 32, 32)
    small = config_from_hf(
        {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 96}
    )
    assert (small.block.head_dim, small.block.n_kv_heads) == (16, 4)


@pytest.mark.parametrize("layout", [4, 5])
def test_both_layouts_of_a_rope_are_read(layout):
    scaling = {"factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
    keys = (
        {"rope_theta": 1234.0, "rope_scaling": {"rope_type": "llama3", **scaling}}
        if layout == 4
        else {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1234.0, **scaling}}
    )
    config = config_from_hf({**LLAMA, **keys})
    assert config.block.rope_theta == 1234.0
    assert config.block.position.options["scaling"]["name"] == "llama3"


def test_a_model_is_of_the_family_that_has_least_to_say(model):
    """A llama is said by many; of them it is a llama."""
    assert fitting(model)[0].model_type == "llama"
    windowed = LanguageModel(make_config("mistral", size="tiny"))
    assert fitting(windowed)[0].model_type == "mistral"
    assert fitting(LanguageModel(make_config("qwen3", size="tiny")))[0].model_type == "qwen3"


def test_a_model_of_no_family_is_for_lmx_alone(tmp_path):
    block = {
        "attention": "gqa",
        "ffn": spec("gated", activation="relu"),
        "position": "alibi",
        "d_model": 32,
        "n_heads": 4,
    }
    model = LanguageModel(ModelConfig(block=make_block(**block), vocab_size=64, n_layers=2))
    with pytest.raises(ConfigError, match='no family says this model.*format="lmx"') as refused:
        export(model, tmp_path / "none")
    assert len(str(refused.value).splitlines()) == 5
    assert not (tmp_path / "none").exists()
    export(model, tmp_path / "own", "lmx")
    assert {file.name for file in (tmp_path / "own").iterdir()} == {"config.json", "model.safetensors"}


def make_block(**fields):
    from lmx_core import BlockConfig

    return BlockConfig(**fields)


def test_an_export_leaves_what_is_there(model, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is there already"):
        export(model, tmp_path / "mine")
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_an_export_that_fails_leaves_nothing(model, tmp_path, monkeypatch):
    def full(*_):
        raise RuntimeError("No space left on device")

    monkeypatch.setattr(mx, "save_safetensors", full)
    with pytest.raises(CheckpointError, match="No space left"):
        export(model, tmp_path / "full")
    assert not list(tmp_path.iterdir())


def test_a_family_that_does_not_say_the_model_is_refused_by_name(model, tmp_path):
    with pytest.raises(ConfigError, match="a qwen2 is another model: .*qkv_bias"):
        export(model, tmp_path / "qwen", family="qwen2")


def test_a_family_may_have_further_names():
    """Kimi K2 is DeepSeek-V3, and is written as it."""
    assert registry("loader").get("kimi_k2") is registry("loader").get("deepseek_v3")


def test_tokenizers_go_along(model, tmp_path):
    """Bytes have a form that transformers reads, with the same ids; of letters only lmx knows what they are."""
    text = "to be, \N{SNOWMAN} or not"
    for name in ("bytes", "chars"):
        tokenizer = registry("tokenizer").get(name).fit([text])
        export(model, tmp_path / name, "lmx", tokenizer=tokenizer)
        assert open_model(str(tmp_path / name)).tokenizer.encode(text) == tokenizer.encode(text)
    tokenizer = registry("tokenizer").get("bytes")()
    export(model, tmp_path / "hf", tokenizer=tokenizer)
    _, read = load_from_hf(tmp_path / "hf")
    assert read.encode(text) == tokenizer.encode(text)
    assert read.decode_bytes(read.encode(text)) == text.encode()
    with pytest.warns(LmxWarning, match="the tokenizer 'chars' has no form that others read"):
        export(model, tmp_path / "without", tokenizer=registry("tokenizer").get("chars").fit([text]))
    assert load_from_hf(tmp_path / "without")[1] is None


def test_an_adapter_of_mlx_lm_on_square_matrices_is_not_turned_twice(tmp_path):
    """GPT-2 keeps its matrices (in, out) on the hub and (out, in) in mlx-lm, which shapes that are square do not tell."""
    model = randomise(LanguageModel(make_config("gpt2", size="tiny")))
    export(model, tmp_path / "gpt2", family="gpt2")
    width = model.config.block.d_model
    a, b = mx.random.normal((width, 2), key=mx.random.key(1)), mx.random.normal((2, width), key=mx.random.key(2))
    (tmp_path / "adapter").mkdir()
    stem = "model.h.0.attn.c_proj"
    mx.save_safetensors(str(tmp_path / "adapter/adapters.safetensors"), {f"{stem}.lora_a": a, f"{stem}.lora_b": b})
    about = {"fine_tune_type": "lora", "num_layers": 2, "lora_parameters": {"rank": 2, "scale": 3.0, "dropout": 0.0}}
    (tmp_path / "adapter/adapter_config.json").write_text(json.dumps(about))
    found, _ = load_from_hf(tmp_path / "gpt2", adapter=tmp_path / "adapter")
    before, after = (each.layers[0].attention.o_proj.weight for each in (model, found))
    assert mx.allclose(after, before + 3.0 * (a @ b).T, atol=1e-5).item()


def test_what_lies_beside_the_weights_is_not_read(folder, model):
    """`model.safetensors` is the model, whatever else is named like it; so it is on the hub."""
    zeros = {name: mx.zeros(each.shape) for name, each in mx.load(str(folder / "model.safetensors")).items()}
    mx.save_safetensors(str(folder / "model_before_training.safetensors"), zeros)
    assert same(load_from_hf(folder)[0], model)


def test_a_family_of_another_author_is_taken_where_it_is_named(model, tmp_path):
    """It may have less to say than lmx-hf's own, and be known to nobody else; one that is none harms nothing."""
    few = attrs.evolve(registry("loader").get("llama"), model_type="acme", architecture="")
    registry("loader").register("acme")(few)
    registry("loader").register("broken")(3)
    try:
        assert fitting(model)[0].model_type == "llama"
        export(model, tmp_path / "out", family="acme")
        assert "architectures" not in json.loads((tmp_path / "out/config.json").read_text())
        with pytest.raises(ComponentError, match="loader.broken from .* is no lmx_hf.Family, got int"):
            export(model, tmp_path / "none", family="broken")
    finally:
        for name in ("acme", "broken"):
            registry("loader").unregister(name)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"hidden_size": "wide"}, "config.json of llama cannot be read"),
        ({"num_attention_heads": 0}, "config.json of llama cannot be read"),
        ({"rope_theta": "much"}, "config.json of llama cannot be read"),
        ({"rope_scaling": [1]}, "config.json of llama cannot be read"),
        ({"rope_parameters": {"rope_theta": None}}, "config.json of llama cannot be read"),
        ({"text_config": 3}, "text_config of config.json is 3, and no table"),
        ({"quantization_config": [1]}, "quantization_config is .1., which names no method"),
        ({"quantization_config": {"quant_method": [1]}}, "which names no method"),
    ],
)
def test_wrong_types_in_a_config_are_told(folder, keys, message):
    with pytest.raises(LmxError, match=message):
        load_from_hf(configured(folder, **keys))


@pytest.mark.parametrize("head", ["[]", "3", '{"a": {"data_offsets": []}}', '{"a": {"data_offsets": 3}}'])
def test_a_head_of_another_kind_is_told(folder, head):
    (folder / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head.encode())
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_from_hf(folder)


@pytest.mark.parametrize(
    ("quantize", "message"),
    [
        ("4", "quantize='4'. Give a number of bits"),
        ({"bit": 4}, "quantize has 'bit'. Did you mean 'bits'"),
        ({"bits": 4, "rules": ["head"]}, "is no table of what becomes of modules"),
        ({"bits": 4, "rules": {"head": 3.5}}, "rule 'head' is 3.5. It is a number of bits, 'dense', or a table"),
    ],
)
def test_what_cannot_be_packed_so_is_told(folder, quantize, message):
    with pytest.raises(ConfigError, match=message):
        load_from_hf(folder, quantize=quantize)


def test_dense_is_a_rule(folder):
    packed = packed_modules(load_from_hf(folder, quantize={"bits": 8, "group_size": 32, "rules": {"head": "dense"}})[0])
    assert packed
    assert "head" not in packed


def test_weights_of_another_size_than_the_config_are_not_written(folder, tmp_path):
    """A vocabulary that was cut, a head that was taken: transformers would not read it."""
    model, _ = load_from_hf(folder)
    model.embed.weight = model.embed.weight[:40]
    with pytest.raises(ConfigError, match="not what its config says: embed.weight .40, 32., not .64, 32."):
        export(model, tmp_path / "cut")
    assert not (tmp_path / "cut").exists()


def test_a_tokenizer_that_nobody_registered_is_not_saved(model, tmp_path):
    class Mine(registry("tokenizer").get("bytes")):
        pass

    with pytest.raises(ConfigError, match="Mine is no tokenizer that is installed"):
        export(model, tmp_path / "mine", "lmx", tokenizer=Mine())


def test_memory_stays_near_the_models_size(tmp_path):
    """Of 64 MB in tensors that are split and turned, no more than a little is held twice."""
    sizes = {"d_model": 512, "n_heads": 8, "n_layers": 4, "vocab_size": 4000, "max_seq_len": 64}
    for name, numbers in {"phi3": {"n_kv_heads": 8, "d_ff": 1536}, "gpt2": {"d_ff": 2048}}.items():
        model = randomise(LanguageModel(make_config(name, **sizes, **numbers)))
        size = sum(weight.nbytes for weight in flat_parameters(model).values())
        export(model, tmp_path / name, family=name)
        del model
        mx.clear_cache()
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        kept = load_from_hf(tmp_path / name)
        assert mx.get_peak_memory() - before <= 1.15 * size
        del kept


def test_the_tokens_that_end_a_text_go_along(model, tmp_path):
    """Those of generation_config.json too, by which a chat ends; of a model without any, none of transformers' class."""

    def ids(folder):
        data = json.loads((folder / "config.json").read_text())
        return data["bos_token_id"], data["eos_token_id"], data["pad_token_id"]

    export(model, tmp_path / "none")
    assert ids(tmp_path / "none") == (None, None, None)
    export(model, tmp_path / "first", tokenizer=registry("tokenizer").get("bytes")())
    assert ids(tmp_path / "first") == (None, 0, None)
    configured(tmp_path / "first", bos_token_id=7)
    (tmp_path / "first/generation_config.json").write_text(json.dumps({"eos_token_id": [0, 9]}))
    read, tokenizer = load_from_hf(tmp_path / "first")
    export(read, tmp_path / "second", tokenizer=tokenizer)
    assert ids(tmp_path / "second") == (7, [0, 9], None)
    assert load_from_hf(tmp_path / "second")[1].eos_tokens == (0, 9)


def test_mistakes_are_told_before_anything_is_fetched(monkeypatch):
    monkeypatch.setattr("lmx_hf.hub.fetch", lambda *_, **__: pytest.fail("fetched"))
    for mistake in ({"dtype": "float64"}, {"quantize": {"bit": 4}}):
        with pytest.raises(ConfigError):
            load_from_hf("someone/large", **mistake)
