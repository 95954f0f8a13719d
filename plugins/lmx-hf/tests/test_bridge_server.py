"""mlx-lm's server answers with what lmx writes."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from .small_models import PROMPTS, QUESTION, greedy, saved, talking

pytest.importorskip("mlx_lm", reason="the tests run mlx-lm's server")

pytestmark = pytest.mark.once


class Server:
    """`lmx mlx-lm server`, until the block ends."""

    def __init__(self, model):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = [sys.executable, "-m", "lmx_core", "mlx-lm", "server", "--model", model, "--port", str(self.port)]
        environment = {**os.environ, "NO_PROXY": "127.0.0.1", "HF_HUB_OFFLINE": "1"}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)

    def __enter__(self):
        for _ in range(600):
            try:
                assert self.process.poll() is None, self.process.communicate()[0].decode()
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health"):
                    return self
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)
        raise TimeoutError("the server does not come up")

    def __exit__(self, *error):
        self.process.terminate()
        self.process.communicate()

    def post(self, place, **body):
        """The lines of the answer."""
        url = f"http://127.0.0.1:{self.port}/v1/{place}"
        request = urllib.request.Request(url, json.dumps({"temperature": 0, **body}).encode())
        with urllib.request.urlopen(request) as answer:
            return answer.read().decode().splitlines()

    def completion(self, prompt, n=20, **more):
        (line,) = self.post("completions", prompt=prompt, max_tokens=n, **more)
        return json.loads(line)["choices"][0]["text"]


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_completions_of_several_at_once(tmp_path, name):
    """Each gets what it gets alone, streamed or not, again with what the server remembers, and of another model too."""
    folder, model = saved(tmp_path / "model", name)
    other, another = saved(tmp_path / "other", name, n_layers=1)
    with Server(folder) as server:
        with ThreadPoolExecutor(len(PROMPTS)) as many:
            assert list(many.map(server.completion, PROMPTS)) == [greedy(model, prompt) for prompt in PROMPTS]
        longer = PROMPTS[1] + greedy(model, PROMPTS[1]) + " and"
        assert server.completion(longer) == greedy(model, longer)

        lines = server.post("completions", prompt=PROMPTS[3], max_tokens=20, stream=True)
        pieces = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
        texts = [choice["text"] for piece in pieces for choice in piece["choices"]]
        assert "".join(texts) == greedy(model, PROMPTS[3])
        assert len(texts) > 5

        assert server.completion("abc", model=other) == greedy(another, "abc")


def test_chat_with_a_hugging_face_checkpoint(tmp_path):
    """Its chat template is used, and its tokens are those of lmx's tokenizer."""
    folder, answer = talking(tmp_path / "model")
    with Server(folder) as server:
        (line,) = server.post("chat/completions", messages=[{"role": "user", "content": QUESTION}], max_tokens=20)

    assert json.loads(line)["choices"][0]["message"]["content"] == answer
