"""A Hugging Face hub on loopback, with what can go wrong between it and us.

Repositories lie in memory. Every request is kept in `requests`. A fault changes the answers to requests that it is about,
a number of times.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import attrs

TOKEN = "hf_a_good_token"
LARGE = (".safetensors", ".bin", ".gguf")


@attrs.define
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def token(self) -> str | None:
        return self.headers.get("authorization", "").removeprefix("Bearer ") or None

    @property
    def table(self) -> dict:
        return json.loads(self.body)


@attrs.define
class Answer:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = attrs.Factory(dict)
    length: int | None = None
    """What Content-Length says, where it is not the body's."""
    hang: threading.Event | None = None
    """Waited for after the body, if there is one."""


def as_json(value: object, status: int = 200, **headers: str) -> Answer:
    return Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json", **headers})


def refusal(status: int, code: str, message: str) -> Answer:
    return as_json({"error": message}, status, **{"X-Error-Code": code, "X-Error-Message": message})


# ------------------------------------------------------------------------------------------------------------ faults


Change = Callable[[Callable[[], Answer]], Answer]
"""Of an answer that is yet to be made."""


def cut(after: int, hang: threading.Event | None = None) -> Change:
    """The connection ends in the middle of the body, at once or when something happens."""

    def change(answer: Callable[[], Answer]) -> Answer:
        whole = answer()
        return attrs.evolve(whole, body=whole.body[:after], length=len(whole.body), hang=hang)

    return change


def short(answer: Callable[[], Answer]) -> Answer:
    """Less than the hub says elsewhere that the file has."""
    whole = answer()
    return attrs.evolve(whole, body=whole.body[:-100])


def flipped(answer: Callable[[], Answer]) -> Answer:
    """As long as it should be, and wrong."""
    whole = answer()
    return attrs.evolve(whole, body=bytes([whole.body[0] ^ 0xFF]) + whole.body[1:])


def html(_: Callable[[], Answer]) -> Answer:
    """The login page of a network."""
    return Answer(200, b"<html>Accept our terms</html>", {"Content-Type": "text/html"})


def status(code: int, **headers: str) -> Change:
    """Another answer; what was asked for is not done."""
    return lambda _: as_json({"error": "not now"}, code, **{k.replace("_", "-"): v for k, v in headers.items()})


@attrs.define
class Fault:
    about: re.Pattern[str]
    change: Change
    times: int


# ------------------------------------------------------------------------------------------------------ repositories


@attrs.define
class Repository:
    """Files by commit; the last one is the main branch's."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = attrs.Factory(dict)

    def commit(self, files: dict[str, bytes]) -> str:
        sha = hashlib.sha1(repr([(name, git_sum(data)) for name, data in sorted(files.items())]).encode()).hexdigest()
        self.commits.pop(sha, None)
        self.commits[sha] = files
        return sha

    @property
    def head(self) -> str:
        return [*self.commits][-1]

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[self.head]


def git_sum(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def sum_of(name: str, data: bytes) -> str:
    """As an ETag."""
    return hashlib.sha256(data).hexdigest() if name.endswith(LARGE) else git_sum(data)


class Hub:
    """`with Hub() as hub`: `hub.url` is its address, until the end of the block."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.stored: dict[str, bytes] = {}
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.may_write = True
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def _any(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Request(self.command, unquote(urlsplit(self.path).path), headers, self._read(headers))
                self._send(hub.answer(request))

            do_HEAD = do_GET = do_POST = do_PUT = _any  # noqa: N815

            def _read(self, headers: dict[str, str]) -> bytes:
                if headers.get("transfer-encoding") != "chunked":
                    return self.rfile.read(int(headers.get("content-length", 0)))
                parts = []
                while size := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)

            def _send(self, answer: Answer) -> None:
                self.send_response(answer.status)
                length = len(answer.body) if answer.length is None else answer.length
                for name, value in {"Content-Length": str(length), **answer.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "HEAD":
                    return
                self.wfile.write(answer.body)
                if answer.hang is not None:
                    self.wfile.flush()
                    answer.hang.wait(30)
                self.close_connection = length != len(answer.body)

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """A client that goes away is no matter."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> "Hub":
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def put(self, name: str, files: dict[str, bytes], **properties: bool) -> Repository:
        repository = self.repositories.setdefault(name, Repository(**properties))
        repository.commit(files)
        return repository

    def fault(self, about: str, change: Change, times: int = 1) -> None:
        """For requests such as `GET /owner/name/resolve/.../model.safetensors`."""
        self.faults.append(Fault(re.compile(about), change, times))

    def asked(self, about: str) -> list[Request]:
        return [request for request in self.requests if re.search(about, str(request))]

    def answer(self, request: Request) -> Answer:
        self.requests.append(request)
        for fault in self.faults:
            if fault.times and fault.about.search(str(request)):
                fault.times -= 1
                return fault.change(lambda: self._plain(request))
        return self._plain(request)

    def _plain(self, request: Request) -> Answer:
        for pattern, route in ROUTES.items():
            if found := re.fullmatch(pattern, str(request)):
                return route(self, request, **found.groupdict())
        return as_json({"error": "no such page"}, 404)

    def _readable(self, request: Request, name: str) -> Repository | None:
        found = self.repositories.get(name)
        return None if found is None or (found.private and request.token != TOKEN) else found

    # ---------------------------------------------------------------------------------------------------- reading

    def info(self, request: Request, name: str, revision: str | None = None) -> Answer:
        found, commit = self._at(request, name, revision)
        if isinstance(found, Answer):
            return found
        siblings = [{"rfilename": file} for file in found.commits[commit]]
        facts = {"id": name, "sha": commit, "private": found.private, "gated": found.gated, "siblings": siblings}
        return as_json(facts)

    def tree(self, request: Request, name: str, revision: str) -> Answer:
        found, commit = self._at(request, name, revision)
        if isinstance(found, Answer):
            return found
        return as_json([_entry(*file) for file in sorted(found.commits[commit].items())])

    def file(self, request: Request, name: str, revision: str, file: str) -> Answer:
        found, commit = self._at(request, name, revision)
        if isinstance(found, Answer):
            return found
        if found.gated and request.token != TOKEN:
            return refusal(403 if request.token else 401, "GatedRepo", f"Access to model {name} is restricted")
        if file not in found.commits[commit]:
            return refusal(404, "EntryNotFound", "Entry not found")
        return _served(request, file, found.commits[commit][file], commit)

    def _at(self, request: Request, name: str, revision: str | None) -> tuple[Repository | Answer, str]:
        found = self._readable(request, name)
        if found is None:
            return refusal(404 if request.token else 401, "RepoNotFound", "Repository not found"), ""
        commit = found.head if revision in (None, "main") else revision
        if commit not in found.commits:
            return refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}"), ""
        return found, commit

    # ---------------------------------------------------------------------------------------------------- writing

    def create(self, request: Request) -> Answer:
        owner, name = request.table["organization"], request.table["name"]
        full = f"{owner or 'me'}/{name}"
        if request.token != TOKEN:
            return as_json({"error": "Invalid username or password."}, 401)
        if not self.may_write:
            return as_json({"error": f"You don't have the rights to create a model under the namespace {owner!r}"}, 403)
        if full in self.repositories:
            return as_json({"error": "You already created this model repo", "url": f"{self.url}/{full}"}, 409)
        private = request.table.get("private") or request.table.get("visibility") == "private"
        self.put(full, {".gitattributes": b"*.safetensors filter=lfs\n"}, private=bool(private))
        return as_json({"url": f"{self.url}/{full}", "name": full})

    def card(self, request: Request) -> Answer:
        return as_json({"errors": [], "warnings": []})

    def modes(self, request: Request, name: str, revision: str) -> Answer:
        files = [
            {"path": path, "uploadMode": "lfs" if path.endswith(LARGE) else "regular", "shouldIgnore": False}
            for path in (file["path"] for file in request.table["files"])
        ]
        return as_json({"files": files})

    def batch(self, request: Request, name: str) -> Answer:
        objects = [
            {**each, "actions": {"upload": {"href": f"{self.url}/store/{each['oid']}"}}}
            for each in request.table["objects"]
        ]
        return as_json({"transfer": "basic", "objects": objects})

    def store(self, request: Request, total: str) -> Answer:
        if hashlib.sha256(request.body).hexdigest() != total:
            return as_json({"error": "wrong checksum"}, 400)
        self.stored[total] = request.body
        return Answer()

    def commit(self, request: Request, name: str, revision: str) -> Answer:
        repository = self.repositories[name]
        files = dict(repository.files)
        for path, data in self._added(map(json.loads, request.body.splitlines())):
            files[path] = data
        sha = repository.commit(files)
        return as_json({"commitUrl": f"{self.url}/{name}/commit/{sha}", "commitOid": sha})

    def _added(self, lines: Iterator[dict]) -> Iterator[tuple[str, bytes]]:
        for line in lines:
            if line["key"] == "file":
                yield line["value"]["path"], base64.b64decode(line["value"]["content"])
            elif line["key"] == "lfsFile":
                yield line["value"]["path"], self.stored[line["value"]["oid"]]


def _entry(name: str, data: bytes) -> dict:
    large = {"lfs": {"oid": sum_of(name, data), "size": len(data), "pointerSize": 130}} if name.endswith(LARGE) else {}
    return {"type": "file", "path": name, "size": len(data), "oid": git_sum(data), **large}


def _served(request: Request, file: str, data: bytes, commit: str) -> Answer:
    total = sum_of(file, data)
    headers = {"ETag": f'"{total}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
    if file.endswith(LARGE):
        headers |= {"X-Linked-Etag": f'"{total}"', "X-Linked-Size": str(len(data))}
    if start := re.match(r"bytes=(\d+)-", request.headers.get("range", "")):
        first = int(start[1])
        headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
        return Answer(206, data[first:], headers)
    return Answer(200, data, headers)


NAME = r"(?P<name>[^/]+/[^/]+)"
ROUTES: dict[str, Callable[..., Answer]] = {
    rf"GET /api/models/{NAME}": Hub.info,
    rf"GET /api/models/{NAME}/revision/(?P<revision>[^/]+)": Hub.info,
    rf"GET /api/models/{NAME}/tree/(?P<revision>[^/]+)": Hub.tree,
    rf"(?:HEAD|GET) /{NAME}/resolve/(?P<revision>[^/]+)/(?P<file>.+)": Hub.file,
    r"POST /api/repos/create": Hub.create,
    r"POST /api/validate-yaml": Hub.card,
    rf"POST /api/models/{NAME}/preupload/(?P<revision>[^/]+)": Hub.modes,
    r"POST /(?P<name>[^/]+/[^/]+)\.git/info/lfs/objects/batch": Hub.batch,
    r"PUT /store/(?P<total>[0-9a-f]{64})": Hub.store,
    rf"POST /api/models/{NAME}/commit/(?P<revision>[^/]+)": Hub.commit,
}
