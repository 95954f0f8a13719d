"""A tokenizer with a chat template, in a few lines."""

from lmx_core.data.tokenizers import ByteTokenizer


class Chatting(ByteTokenizer):
    """Bytes, with a chat template: `<role:content>`, of which the assistant's content and `>` are learned."""

    prefix = (1,)
    eos_tokens = (2,)

    def encode_chat(self, messages, tools=None):
        tokens, learn = self.encode(f"{tools}" if tools else ""), []
        learn = [False] * len(tokens)
        for each in messages:
            for said, is_learned in (
                (f"<{each['role']}:", False),
                (f"{each['content']}>", each["role"] == "assistant"),
            ):
                tokens += self.encode(said)
                learn += [is_learned] * len(said)
        return tokens, learn

    def apply_chat_template(self, messages, tools=None):
        return [*self.encode_chat(messages, tools)[0], *self.encode("<assistant:")]
