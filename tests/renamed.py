"""Core with every component under another name, to show that no name is compared anywhere.

`pytest --renamed` runs tests so; `python -P renamed.py` prints what models compute, `python -P renamed.py renamed` what
they compute then.
"""

import hashlib
import sys

SUFFIX = "_elsewhere"


def rename() -> None:
    """Register the built-ins under other names; what tests and defaults write then means these.

    Commands keep theirs: people type them.
    """
    from lmx_core import builtin, config, registry

    old = [key for key in builtin.BUILTIN if not key.startswith("command.")]
    names = {key.partition(".")[2] for key in old}
    for key in old:
        builtin.BUILTIN[f"{key}{SUFFIX}"] = builtin.BUILTIN.pop(key)

    def renamed(name: str) -> str:
        dist, slash, bare = name.rpartition("/")
        return f"{dist}{slash}{bare}{SUFFIX}" if bare in names else name

    spec, found, offered = config.ComponentSpec.__init__, registry.Registry.find, registry.Registry.refs
    config.ComponentSpec.__init__ = lambda self, name, *options: spec(
        self, renamed(name) if isinstance(name, str) else name, *options
    )
    registry.Registry.find = lambda self, name: found(self, renamed(name) if self.kind != "command" else name)
    registry.Registry.refs = lambda self, name=None: offered(
        self, renamed(name) if name and self.kind != "command" else name
    )
    config.PRE_NORM, config.POST_NORM = config.ComponentSpec("pre_norm"), config.ComponentSpec("post_norm")
    registry.forget()


def main() -> None:
    import mlx.core as mx

    from lmx_core import BlockConfig, LanguageModel, ModelConfig, make_config, spec
    from lmx_core.builtin import BUILTIN
    from lmx_core.testing import randomise

    small = {"d_model": 32, "n_heads": 4, "d_ff": 48}
    blocks = [
        {
            "attention": attention,
            "n_kv_heads": heads,
            "ffn": spec("gated", activation="gelu"),
            "norm": norm,
            "position": position,
            "layout": layout,
        }
        for attention, heads in (("mha", 4), ("gqa", 2), ("none", 4))
        for norm in ("rms_norm", "layer_norm", "none")
        for position in ("rope", "learned", "sinusoidal", "none", *(["alibi"] if attention != "none" else []))
        for layout in ("pre_norm", "post_norm")
        if (attention, position) != ("none", "rope")
    ]
    configs = [ModelConfig(block=BlockConfig(**small, **each), vocab_size=50, n_layers=2) for each in blocks]
    families = [key.partition(".")[2] for key in BUILTIN if key.startswith("config.")]
    for config in [*configs, *(make_config(name, size="tiny") for name in families)]:
        model = LanguageModel(config)
        randomise(model).eval()
        logits, _ = model(mx.array([[1, 2, 3, 4, 5]]))
        print(hashlib.sha256(bytes(memoryview(logits))).hexdigest(), config.block.pre_norm)


if __name__ == "__main__":
    if sys.argv[1:] == ["renamed"]:
        rename()
    main()
