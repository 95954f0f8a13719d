"""Tokenizers of every kind, fitted on a little text in a moment, and folders of them as models have."""

import base64
import json

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from lmx_hf.text.pieces import ALPHABET

TEXT = "to be or not to be, that is the question\n"
SPECIAL = ["<|endoftext|>", "<s>", "</s>", "<unk>"]
GPT4 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def trained(model, trainer, special=SPECIAL, **parts):
    """A tokenizer of `tokenizers`, fitted on a little text."""
    found = Tokenizer(model)
    for name, part in parts.items():
        setattr(found, name, part)
    found.train_from_iterator([TEXT] * 20, trainer(special_tokens=special, show_progress=False))
    return found


def gpt2():
    """A byte-level vocabulary that adds a token before every text, if asked to."""
    return trained(
        models.BPE(),
        lambda **options: trainers.BpeTrainer(vocab_size=320, initial_alphabet=ALPHABET, **options),
        pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=False),
        decoder=decoders.ByteLevel(),
        post_processor=processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)]),
    )


def llama3():
    """A byte-level vocabulary with headers of turns, as models that chat have."""
    special = [
        "<|begin|>",
        "<|end|>",
        "<|turn|>",
        "<|eot|>",
        "<|tool|>",
        "<|im_start|>",
        "<|im_end|>",
        "[INST]",
        "[/INST]",
    ]
    return trained(
        models.BPE(),
        lambda **options: trainers.BpeTrainer(vocab_size=330, initial_alphabet=ALPHABET, **options),
        special=special,
        pre_tokenizer=pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(GPT4), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        ),
        decoder=decoders.ByteLevel(),
        post_processor=processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", 0)]),
    )


def llama2():
    """Spaces as a character of their own, one before the text, and bytes where characters are unknown."""
    made = [f"<0x{byte:02X}>" for byte in range(256)]
    plain = trained(
        models.BPE(unk_token="<unk>"),
        lambda special_tokens, **options: trainers.BpeTrainer(
            vocab_size=400, special_tokens=[*special_tokens, *made], **options
        ),
        normalizer=normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
        decoder=decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        ),
    )
    data = json.loads(plain.to_str())
    data["model"] |= {"byte_fallback": True, "fuse_unk": True}
    data["added_tokens"] = [added for added in data["added_tokens"] if added["content"] in SPECIAL]
    return Tokenizer.from_str(json.dumps(data))


def words():
    """Lower case, known words alone: what comes back is another text."""
    return trained(
        models.WordPiece(unk_token="<unk>"),
        lambda **options: trainers.WordPieceTrainer(vocab_size=60, **options),
        normalizer=normalizers.Lowercase(),
        pre_tokenizer=pre_tokenizers.BertPreTokenizer(),
        decoder=decoders.WordPiece(cleanup=False),
    )


def unigram():
    """SentencePiece's other model, which ends every text if asked to (T5)."""
    return trained(
        models.Unigram(),
        lambda **options: trainers.UnigramTrainer(vocab_size=60, unk_token="<unk>", **options),
        normalizer=normalizers.NFKC(),
        pre_tokenizer=pre_tokenizers.Metaspace(),
        decoder=decoders.Metaspace(),
        post_processor=processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)]),
    )


def gpt1():
    """Lower-case words that end in a mark of their own."""
    return trained(
        models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"),
        lambda **options: trainers.BpeTrainer(vocab_size=60, end_of_word_suffix="</w>", **options),
        normalizer=normalizers.Lowercase(),
        pre_tokenizer=pre_tokenizers.BertPreTokenizer(),
        decoder=decoders.BPEDecoder(suffix="</w>"),
    )


BUILT = {
    "byte level": gpt2,
    "byte level, headers": llama3,
    "byte fallback": llama2,
    "words": words,
    "unigram": unigram,
    "word ends": gpt1,
}


def written(folder, tokenizer, **config):
    """The folder of a model, with the tokenizer and what `tokenizer_config.json` says."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def vocab_and_merges(folder):
    """GPT-2's two files, as models had before there was a `tokenizer.json`."""
    folder.mkdir(parents=True)
    gpt2().model.save(str(folder))
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    return folder


def ranks(folder):
    """A rank file of tiktoken's, under the name that models have it."""
    folder.mkdir(parents=True)
    merged = [b"th", b"to", b" be", b" the", b"qu", b"is"]
    tokens = [bytes([byte]) for byte in range(256)] + [b" t", b" b", *merged]
    lines = [base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(tokens)]
    (folder / "tokenizer.model").write_bytes(b"".join(lines))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    return folder


def sentencepiece(folder):
    """A SentencePiece model with bytes, as LLaMA 2 has."""
    import io

    import sentencepiece as library

    folder.mkdir(parents=True)
    model = io.BytesIO()
    library.SentencePieceTrainer.train(
        sentence_iterator=iter([TEXT.strip()] * 50),
        model_writer=model,
        model_type="bpe",
        vocab_size=300,
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    return folder
