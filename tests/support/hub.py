"""A stand-in of the Hugging Face hub: what its client asks when a model is pushed and pulled."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_secretsecretsecret"
LARGE = 20_000  # bytes from which a file goes to the store of large files


@dataclass
class Repository:
    """A repository: the files of each commit, and the commit of each branch."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        oid = hashlib.sha1(repr((len(self.commits), sorted(files))).encode()).hexdigest()
        self.commits[oid], self.branches[branch] = files, oid
        return oid

    def at(self, revision: str) -> str | None:
        oid = self.branches.get(revision, revision)
        return oid if oid in self.commits else None


class Hub(ThreadingHTTPServer):
    """The server; `url` is its endpoint."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.calls: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.store = f"http://localhost:{self.server_address[1]}/large"  # another host, as there


class Answer(BaseHTTPRequestHandler):
    """One request."""

    server: Hub
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # head and body together, which need not wait for each other

    def log_message(self, *_: object) -> None:
        pass

    def _handle(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.calls.append(f"{self.command} {path}")
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length)
        for verb, form, answer in ROUTES:
            if self.command in verb and (match := re.fullmatch(form, path)):
                return answer(self, *match.groups())
        return self.say(404, {"error": f"the stand-in knows no {self.command} {path}"})

    do_GET = do_POST = do_PUT = do_HEAD = _handle  # noqa: N815

    def say(self, status: int, content: Any = b"", **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def repository(self, name: str, write: bool = False) -> Repository | None:
        """Return a repository that the token may read or write; say why not otherwise."""
        known, mine = self.server.repositories.get(name), self.headers["Authorization"]
        if known is None or (known.private and mine != f"Bearer {TOKEN}"):
            self.say(401 if mine is None else 404, {"error": "no"}, X_Error_Code="RepoNotFound")
            return None
        if write and mine != f"Bearer {TOKEN}":
            self.say(403, {"error": "no write access"}, X_Error_Message="no write access")
            return None
        return known

    def create(self) -> None:
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            return self.say(401, {"error": "Invalid username or password."})
        asked = json.loads(self.body)
        name = f"{asked.get('organization', 'me')}/{asked['name']}"
        private = asked.get("private") or asked.get("visibility") == "private"
        if name in self.server.repositories:
            return self.say(409, {"error": "there already", "url": f"{self.server.url}/{name}"})
        found = self.server.repositories[name] = Repository(private)
        found.commit("main", {".gitattributes": b""})
        return self.say(200, {"url": f"{self.server.url}/{name}"})

    def branch(self, name: str, branch: str) -> None:
        if (found := self.repository(name, write=True)) is not None:
            if branch in found.branches:
                return self.say(409, {"error": "there already"})
            found.branches[branch] = found.branches["main"]
            return self.say(200, {})
        return None

    def info(self, name: str, revision: str) -> None:
        if (found := self.repository(name)) is None:
            return None
        if (oid := found.at(revision)) is None:
            return self.say(404, {"error": "no"}, X_Error_Code="RevisionNotFound")
        files = found.commits[oid].items()
        siblings = [{"rfilename": path, "size": len(content)} for path, content in files]
        return self.say(200, {"id": name, "sha": oid, "siblings": siblings})

    def preupload(self, name: str, _: str) -> None:
        if self.repository(name, write=True) is not None:
            modes = [
                {
                    "path": one["path"],
                    "uploadMode": "lfs" if one["size"] > LARGE else "regular",
                    "shouldIgnore": False,
                }
                for one in json.loads(self.body)["files"]
            ]
            self.say(200, {"files": modes})

    def batch(self, _: str) -> None:
        objects = [
            {**one, "actions": {"upload": {"href": f"{self.server.store}/{one['oid']}"}}}
            for one in json.loads(self.body)["objects"]
        ]
        self.say(200, {"transfer": "basic", "objects": objects})

    def put(self, oid: str) -> None:
        if not self.body:  # the client sends parts
            while size := int(self.rfile.readline().strip() or b"0", 16):
                self.body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        self.server.large[oid] = self.body
        self.say(200)

    def commit(self, name: str, branch: str) -> None:
        if (found := self.repository(name, write=True)) is None:
            return None
        header, *lines = map(json.loads, self.body.splitlines())
        if header["value"].get("parentCommit") not in (None, found.branches[branch]):
            return self.say(412, {"error": "the branch has moved"})
        files = dict(found.commits[found.branches[branch]])
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.large[value["oid"]]
            else:
                del files[value["path"]]
        oid = found.commit(branch, files)
        return self.say(
            200, {"commitOid": oid, "commitUrl": f"{self.server.url}/{name}/commit/{oid}"}
        )

    def resolve(self, name: str, revision: str, file: str) -> None:
        if (found := self.repository(name)) is None:
            return None
        oid = found.at(revision)
        if oid is None or file not in found.commits[oid]:
            code = "RevisionNotFound" if oid is None else "EntryNotFound"
            return self.say(404, {"error": "no"}, X_Error_Code=code)
        content = found.commits[oid][file]
        tag = hashlib.sha256(content).hexdigest()
        if len(content) <= LARGE:
            return self.say(200, content, ETag=f'"{tag}"', X_Repo_Commit=oid)
        self.server.large[tag] = content
        linked = {"X_Linked_Etag": f'"{tag}"', "X_Linked_Size": str(len(content))}
        to = f"{self.server.store}/{tag}"
        return self.say(302, b"", Location=to, X_Repo_Commit=oid, **linked)

    def get_large(self, oid: str) -> None:
        self.say(200, self.server.large[oid])


NAME = r"([\w.-]+/[\w.-]+)"
ROUTES = (
    ({"POST"}, "/api/repos/create", Answer.create),
    ({"POST"}, "/api/validate-yaml", lambda answer: answer.say(200, {})),
    ({"POST"}, rf"/api/models/{NAME}/branch/(.+)", Answer.branch),
    ({"GET"}, rf"/api/models/{NAME}/revision/(.+)", Answer.info),
    ({"POST"}, rf"/api/models/{NAME}/preupload/(.+)", Answer.preupload),
    ({"POST"}, rf"/{NAME}\.git/info/lfs/objects/batch", Answer.batch),
    ({"PUT"}, "/large/(.+)", Answer.put),
    ({"GET", "HEAD"}, "/large/(.+)", Answer.get_large),
    ({"POST"}, rf"/api/models/{NAME}/commit/(.+)", Answer.commit),
    ({"GET", "HEAD"}, rf"/{NAME}/resolve/([^/]+)/(.+)", Answer.resolve),
)


@contextmanager
def running() -> Iterator[Hub]:
    """Yield a hub that answers until this ends."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
