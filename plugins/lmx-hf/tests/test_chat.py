"""Conversations by the templates that models bring."""

import datetime
import json
import re
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from lmx_core import LanguageModel, make_config, save_model
from lmx_core.data.tokenizers import decode, load_tokenizer, save_tokenizer
from lmx_core.errors import DataError
from lmx_hf import HFTokenizer
from lmx_hf.data.examples import Encoder

from .small_tokenizers import gpt2, llama3, written

pytestmark = pytest.mark.once

CHATML = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\n' + message.content | trim + '<|im_end|>\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
LLAMA3 = (
    "{{- bos_token }}{% for message in messages %}{% set content = '<|turn|>' + message['role'] + '\n\n' + "
    "message['content'] | trim + '<|eot|>' %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|turn|>assistant\n\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<|turn|>' + role + '\n' + message['content'] | trim + '<|eot|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|turn|>model\n' }}{% endif %}"
)
MISTRAL = (
    "{%- set ns = namespace(system='') %}{%- for m in messages if m.role == 'system' %}{% set ns.system = m.content %}"
    "{% endfor %}{{ bos_token }}{%- for message in messages if message.role != 'system' %}{%- if message.role == 'user' %}"
    "{{- '[INST] ' }}{%- if loop.last and ns.system %}{{ ns.system + '\n\n' }}{%- endif %}{{ message.content + '[/INST]' }}"
    "{%- else %}{{- ' ' + message.content + eos_token }}{%- endif %}{%- endfor %}"
)
TOOLS = (
    "{%- if tools %}<|tool|>{% for tool in tools %}{{ tool | tojson(indent=2) }}\n{% endfor %}{% endif %}"
    "{%- for message in messages %}<|turn|>{{ message.role }} "
    "{%- if message.tool_calls is defined %}{%- for call in message.tool_calls %}"
    "<|tool|>{{ call.function.name }}{{ call.function.arguments | tojson }}{% if loop.index > 4 %}{% break %}{% endif %}"
    "{%- endfor %}{%- else %}{{ message.content }}{%- endif %}<|eot|>\n{%- endfor %}"
    "{{ strftime_now('%Y') }}{% if add_generation_prompt %}<|turn|>assistant{% endif %}"
)
MARKED = (
    "{% for message in messages %}{% if message.role == 'assistant' %}<|im_start|>assistant\n{% generation %}"
    "{{ message.content }}<|im_end|>{% endgeneration %}\n{% else %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FORGETS = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% if loop.last and message.thought is defined %}"
    "{{ message.thought }}{% endif %}{{ message.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEMPLATES = {"chatml": CHATML, "llama 3": LLAMA3, "gemma": GEMMA, "mistral": MISTRAL, "tools": TOOLS, "marked": MARKED}

ASKED = [{"role": "user", "content": "  2+2? é🙂 "}]
TALK = [*ASKED, {"role": "assistant", "content": "It is 4."}, {"role": "user", "content": "And\n3+3?"}]
TOLD = [{"role": "system", "content": "Be brief."}, *TALK]
CALLS = [
    *ASKED,
    {
        "role": "assistant",
        "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": "é"}}}],
    },
    {"role": "tool", "content": "4"},
]


def add(a: int, b: int) -> int:
    """Adds two numbers.

    Args:
        a: The first one.
        b: The other one.
    """
    return a + b


WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


def folder_with(folder, template, **config):
    folder = written(folder, llama3(), bos_token="<|begin|>", eos_token="<|end|>", **config)
    if template is not None:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder


def auto(folder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
@pytest.mark.parametrize("messages", [ASKED, TALK, TOLD, CALLS], ids=["asked", "talk", "told", "calls"])
def test_a_conversation_reads_as_transformers_writes_it(tmp_path, template, messages):
    """Text and ids, with tools and without; where the template refuses it, the message is the template's."""
    folder = folder_with(tmp_path / "model", template)
    ours, theirs = HFTokenizer.read(folder), auto(folder)
    for tools in (None, [add, WEATHER]):
        for prompted in (True, False):
            given = {"tools": tools, "add_generation_prompt": prompted}
            try:
                expected = theirs.apply_chat_template(messages, tokenize=False, **given)
            except Exception as error:
                with pytest.raises(DataError, match=f"the chat template (refuses|fails on) .*{re.escape(str(error))}"):
                    ours.render_chat(messages, **given)
                continue
            assert ours.render_chat(messages, **given) == expected
            tokens = ours.apply_chat_template(messages, **given)
            assert tokens == theirs.apply_chat_template(messages, return_dict=False, **given)
            assert tokens == theirs.encode(expected, add_special_tokens=False)


def test_the_templates_above_do_what_they_are_for(tmp_path):
    """Spelled out once, so that two wrong renderings cannot agree."""
    tokenizer = HFTokenizer.read(folder_with(tmp_path / "model", None))

    def text(template, messages, **given):
        return tokenizer.render_chat(messages, chat_template=template, **given)

    assert text(CHATML, ASKED) == "<|im_start|>user\n2+2? é🙂<|im_end|>\n<|im_start|>assistant\n"
    assert text(LLAMA3, ASKED, add_generation_prompt=False) == "<|begin|><|turn|>user\n\n2+2? é🙂<|eot|>"
    assert text(MISTRAL, TOLD).endswith(" It is 4.<|end|>[INST] Be brief.\n\nAnd\n3+3?[/INST]")
    assert '<|tool|>add{"a": 2, "b": "é"}<|eot|>' in text(TOOLS, CALLS, tools=[add])
    assert '"description": "Adds two numbers."' in text(TOOLS, CALLS, tools=[add])
    assert str(datetime.datetime.now().year) in text(TOOLS, ASKED)
    assert text("{{ mood }}{{ eos_token }}", ASKED, mood="calm") == "calm<|end|>"
    nothing = [*ASKED, {**CALLS[1], "content": None}, CALLS[2]]
    assert text(TOOLS, nothing) == text(TOOLS, CALLS)
    assert "None" not in text(CHATML, nothing)
    with pytest.raises(DataError, match="refuses this conversation: System role not supported"):
        text(GEMMA, TOLD)


NAMED = [{"name": "default", "template": CHATML}, {"name": "tool_use", "template": TOOLS}]


@pytest.mark.parametrize("place", ["jinja", "config", "named", "files", "processor"])
def test_a_template_is_found_wherever_it_is_kept(tmp_path, place):
    """As transformers finds it; saved with the tokenizer, and written into a folder, it is the same."""
    config = {"config": {"chat_template": CHATML}, "named": {"chat_template": NAMED}}.get(place, {})
    folder = folder_with(tmp_path / "model", CHATML if place in ("jinja", "files") else None, **config)
    if place == "files":
        (folder / "additional_chat_templates").mkdir()
        (folder / "additional_chat_templates" / "tool_use.jinja").write_text(TOOLS)
    if place == "processor":
        (folder / "chat_template.json").write_text(json.dumps({"chat_template": CHATML}))
    ours = HFTokenizer.read(folder)
    assert ours.chat_template == CHATML
    save_tokenizer("hf", ours, tmp_path / "saved.json")
    ours.write(tmp_path / "out")
    several = place in ("named", "files")
    expected = [ours.render_chat(TALK), ours.render_chat(TALK, tools=[WEATHER])]
    assert ("<|tool|>" in expected[1]) == several
    for other in (load_tokenizer(tmp_path / "saved.json"), HFTokenizer.read(tmp_path / "out")):
        assert [other.render_chat(TALK), other.render_chat(TALK, tools=[WEATHER])] == expected
    theirs = auto(tmp_path / "out")
    given = {"tokenize": False, "add_generation_prompt": True}
    found = [theirs.apply_chat_template(TALK, **given), theirs.apply_chat_template(TALK, tools=[WEATHER], **given)]
    assert found == expected
    if several:
        assert ours.render_chat(TALK, chat_template="tool_use") == ours.render_chat(TALK, chat_template=TOOLS)


def test_mlx_lm_reads_what_is_written(tmp_path):
    """The same ids, ends and conversations."""
    utilities = pytest.importorskip("mlx_lm.tokenizer_utils", reason="mlx-lm is not installed")
    ours = HFTokenizer.read(folder_with(tmp_path / "model", CHATML))
    ours.write(tmp_path / "out")
    theirs = utilities.load(tmp_path / "out")
    assert theirs.encode("to be é🙂 <|turn|>") == ours.encode_prompt("to be é🙂 <|turn|>")
    assert theirs.apply_chat_template(TALK, add_generation_prompt=True, return_dict=False) == ours.apply_chat_template(
        TALK
    )
    assert theirs.eos_token_ids == {*ours.eos_tokens}
    assert theirs.bos_token_id == ours.bos_token


def test_a_template_can_be_given(tmp_path):
    tokenizer = HFTokenizer.read(folder_with(tmp_path / "model", None))
    assert tokenizer.chat_template is None
    with pytest.raises(DataError, match="has no chat template. Put a chat_template.jinja.*leave --chat out"):
        tokenizer.apply_chat_template(ASKED)
    assert tokenizer.with_chat_template(CHATML).render_chat(ASKED) == tokenizer.render_chat(ASKED, chat_template=CHATML)


@pytest.mark.parametrize(
    ("template", "messages", "message"),
    [
        (CHATML, "hello", "messages='hello': give a list such as"),
        (CHATML, [], "messages=.*give a list such as"),
        (CHATML, ["hello"], "message 0 is 'hello': each is a table with a role and a content"),
        ("{{ messages[0].role + 3 }}", ASKED, "fails on this conversation: TypeError"),
        ("{{ 1 / 0 }}", ASKED, "fails on this conversation: ZeroDivisionError"),
        ("{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}", ASKED, "fails on .*: RecursionError"),
        ("{% for i in range(99999999) %}{% endfor %}", ASKED, "fails on this conversation: OverflowError"),
        ("{% if true %}{% for a in [1] %}" * 25 + "{% endfor %}{% endif %}" * 25, ASKED, "fails on .*: SyntaxError"),
        ("{% for %}", ASKED, "refuses this conversation"),
        ("{{ ''.__class__.__mro__ }}", ASKED, "refuses this conversation: access to attribute '__class__'"),
    ],
)
def test_what_cannot_be_written_is_explained(template, messages, message):
    """A template runs in a sandbox: it is text of strangers."""
    tokenizer = HFTokenizer(json.loads(llama3().to_str())).with_chat_template(template)
    with pytest.raises(DataError, match=message):
        tokenizer.apply_chat_template(messages)


@pytest.mark.parametrize(
    ("template", "messages", "learned"),
    [
        (CHATML, [*TALK, {"role": "assistant", "content": "6"}], ["It is 4.<|im_end|>", "6<|im_end|>"]),
        (MARKED, [*TALK, {"role": "assistant", "content": "6"}], ["It is 4.<|im_end|>", "6<|im_end|>"]),
        (LLAMA3, TOLD, ["It is 4.<|eot|>"]),
        (GEMMA, TALK, ["It is 4.<|eot|>"]),
        (CHATML, ASKED, []),
    ],
)
def test_what_the_assistant_says_is_known(tmp_path, template, messages, learned):
    """Token for token, its end included and the header left out."""
    tokenizer = HFTokenizer.read(folder_with(tmp_path / "model", template))
    tokens, learn = tokenizer.encode_chat(messages)
    assert tokens == tokenizer.apply_chat_template(messages, add_generation_prompt=False)
    turns = [[]]
    for token, learns in zip(tokens, learn, strict=True):
        turns[-1].append(token) if learns else turns.append([])
    assert [decode(tokenizer, turn) for turn in turns if turn] == learned


def test_a_template_that_marks_nothing_is_refused(tmp_path):
    """It would train on no token."""
    nothing = (
        "{% for m in messages %}{% if m.role == 'tool' %}{% generation %}{% endgeneration %}{% endif %}{{ m.content }}"
    )
    tokenizer = HFTokenizer.read(folder_with(tmp_path / "model", nothing + "{% endfor %}"))
    with pytest.raises(DataError, match="marks nothing that the assistant says .*Put it around"):
        tokenizer.encode_chat(TALK)
    assert not any(tokenizer.encode_chat(ASKED)[1])


WORDS = [
    *("<pad>", "<unk>", "<s>", "</s>", "[user]", "[assistant]", "[system]"),
    *("hi", "there", "how", "are", "you", "fine", "thanks", "bye", "ok", "be", "brief"),
]
SPOKEN = (
    "{{ bos_token }} {% for m in messages %}{% if m['role'] == 'assistant' %}[assistant] {% generation %}{{ m['content'] }} "
    "{{ eos_token }}{% endgeneration %} {% else %}[{{ m['role'] }}] {{ m['content'] }} {% endif %}{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
SAID = {
    "messages": [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hi there"},
        {"role": "assistant", "content": "how are you"},
        {"role": "user", "content": "fine thanks"},
        {"role": "assistant", "content": "ok bye"},
    ],
    "input_ids": [2, 6, 16, 17, 4, 7, 8, 5, 9, 10, 11, 3, 4, 12, 13, 5, 15, 14, 3],
    "assistant_masks": [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1],
    "prompt_len_last_turn": 16,
}
"""A conversation as transformers tokenizes and masks it."""


def of_words(words, template):
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(words[:7])
    settings = {"roles": {"bos_token": "<s>", "eos_token": "</s>"}, "templates": {"default": template}}
    return HFTokenizer.from_dict({"tokenizer": json.loads(made.to_str()), "lossy": True, "settings": settings})


def said_as(tokenizer, expected):
    """The masks of all turns, and those of the last one as a completion."""
    tokens, learn = tokenizer.encode_chat(expected["messages"])
    assert tokens == expected["input_ids"]
    assert [int(each) for each in learn] == expected["assistant_masks"]
    *asked, answer = expected["messages"]
    (example,) = Encoder(tokenizer, [], [])("prompt", [{"prompt": asked, "completion": [answer]}])
    length = expected["prompt_len_last_turn"]
    assert example.tokens.tolist() == tokens
    assert example.learn.tolist() == [i >= length for i in range(len(tokens))]


def test_masks_are_those_of_transformers():
    said_as(of_words(WORDS, SPOKEN), SAID)


def test_masks_are_those_of_the_vectors():
    file = Path(__file__).parents[4] / "shared" / "vectors" / "chat_masks.json"
    if not file.exists():
        pytest.skip("no ../shared/vectors beside the checkout")
    vector = json.loads(file.read_text())
    tokenizer = of_words(vector["vocab"], vector["chat_template"])
    said_as(tokenizer, vector)
    assert vector["completion_only_mask"] == [
        int(i >= vector["prompt_len_last_turn"]) for i in range(len(vector["input_ids"]))
    ]


def test_a_template_that_forgets_cannot_tell(tmp_path):
    """One that writes a turn in another way once more follow: learning from what no model saw would be wrong."""
    tokenizer = HFTokenizer.read(folder_with(tmp_path / "model", FORGETS))
    thought = {"role": "assistant", "content": "4", "thought": "Two and two."}
    assert any(tokenizer.encode_chat([*ASKED, thought])[1])
    with pytest.raises(DataError, match="message 1 of 3 is written in another way once more follow"):
        tokenizer.encode_chat([*ASKED, thought, *ASKED])


@pytest.fixture
def chatting(tmp_path):
    """A model that ends its text when it is asked what it knows, saved with its tokenizer."""
    import mlx.core as mx

    tokenizer = HFTokenizer.read(folder_with(tmp_path / "hf", CHATML))
    mx.random.seed(0)
    model = LanguageModel(make_config("llama", size="tiny", vocab_size=tokenizer.vocab_size))
    save_model(model, tmp_path / "model")
    save_tokenizer("hf", tokenizer, tmp_path / "model" / "tokenizer.json")
    return tmp_path / "model", model, tokenizer


def generated(*arguments):
    from click.testing import CliRunner

    from lmx_core.cli.generate import generate

    return CliRunner().invoke(generate, [*map(str, arguments)], catch_exceptions=True)


def test_lmx_generate_answers(chatting):
    """`--chat` puts the prompt as the template writes it, and prints the answer alone, without special tokens."""
    folder, model, tokenizer = chatting
    from lmx_core import generate

    settings = {"max_tokens": 30, "temperature": 0.0, "stop": tokenizer.eos_tokens}
    for prompt, flags, tokens in (
        ("to be", ["--chat"], tokenizer.apply_chat_template([{"role": "user", "content": "to be"}])),
        ("to be", [], tokenizer.encode_prompt("to be")),
    ):
        drawn = generate(model, tokens, **settings)
        text = decode(tokenizer, drawn, skip=tokenizer.special_tokens)
        found = generated(folder, "--prompt", prompt, "--temp", 0, "--max-tokens", 30, *flags)
        assert found.output == ("" if flags else prompt) + text + "\n"


def test_lmx_generate_ends_where_the_model_does(chatting):
    """Before any of the tokenizer's ends: here, whatever comes first."""
    folder, model, tokenizer = chatting
    from lmx_core import generate

    first = generate(model, tokenizer.encode_prompt("to be"), max_tokens=4, temperature=0.0)
    data = json.loads((folder / "tokenizer.json").read_text())
    data["settings"]["ends"] = [first[2]]
    (folder / "tokenizer.json").write_text(json.dumps(data))
    found = generated(folder, "--prompt", "to be", "--temp", 0, "--max-tokens", 30)
    kept = first[: first.index(first[2])]
    assert found.output == "to be" + decode(tokenizer, kept, skip=tokenizer.special_tokens) + "\n"


def test_lmx_generate_says_what_is_missing(chatting):
    folder, _, _ = chatting
    save_tokenizer("hf", HFTokenizer(json.loads(gpt2().to_str())), folder / "tokenizer.json")
    found = generated(folder, "--prompt", "to be", "--chat")
    assert isinstance(found.exception, DataError)
    assert "has no chat template" in str(found.exception)
