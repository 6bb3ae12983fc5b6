"""Packed models on a hub, against a stand-in of it on this machine."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from wespeaker_lap import load_model
from wespeaker_lap.share import bundle, hub

COMMIT = "c0ffee" + 34 * "0"


class Hub(ThreadingHTTPServer):
    """Repositories in memory, with as much of the hub's interface as up- and downloads need."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.created, self.asked = {}, [], []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def reply(self, content=b"{}", code=200, **headers):
        self.send_response(code)
        for name, text in {"Content-Length": len(content), **headers}.items():
            self.send_header(name.replace("_", "-"), str(text))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Authorization") != "Bearer hf_secret":
            self.reply(b'{"error": "who are you?"}', 401)
        elif self.path == "/api/repos/create":
            self.server.created.append(json.loads(body))
            self.reply(json.dumps({"url": f"{self.server.endpoint}/org/name"}).encode())
        elif "/preupload/" in self.path:
            files = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                     for file in json.loads(body)["files"]]
            self.reply(json.dumps({"files": files}).encode())
        elif "/commit/" not in self.path:  # the card's header is looked at
            self.reply(b'{"errors": [], "warnings": []}')
        else:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.server.files[line["value"]["path"]] = content
            self.reply(json.dumps({"commitUrl": f"{self.server.endpoint}/org/name/commit/{COMMIT}",
                                   "commitOid": COMMIT}).encode())

    def do_GET(self):
        _, _, place = self.path.partition("/org/name/resolve/")
        revision, _, name = place.partition("/")
        if name in self.server.files and revision in ("main", COMMIT):
            self.server.asked.append((revision, name))
            content = self.server.files[name]
            self.reply(content, ETag=f'"{hashlib.sha256(content).hexdigest()}"',
                       X_Repo_Commit=COMMIT)
        else:
            self.reply(b"", 404, X_Error_Code="EntryNotFound" if place else "RepoNotFound")

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture
def served():
    with Hub() as server:
        yield server
        server.shutdown()


@pytest.fixture
def made(tmp_path):
    """A packed model, as far as the hub is concerned."""
    folder = tmp_path / "made"
    for name in (*bundle.REQUIRED, "encoder/config.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"content of {name}")
    bundle.seal(folder, {})
    return folder


@pytest.fixture
def call(tmp_path, repo):
    """Call a function of hub.py in a process of its own, which reads the hub's address once."""
    def run(server, code, *args, **environment):
        code = f"import sys\nfrom wespeaker_lap.share.hub import *\nprint({code})"
        known = {"HF_HOME": str(tmp_path / "cache"), "HF_TOKEN": "hf_secret",
                 "HF_ENDPOINT": server.endpoint, "HF_HUB_DISABLE_TELEMETRY": "1",
                 "PYTHONPATH": str(repo)}
        done = subprocess.run([sys.executable, "-c", code, *map(str, args)], text=True,
                              env={**os.environ, **known, **environment}, capture_output=True,
                              check=False)
        last = done.stderr.strip().split("\n")[-1]
        return SimpleNamespace(out=done.stdout.strip(), error=last if done.returncode else "")

    return run


FETCH = "fetch_bundle(sys.argv[1])"
PUSH = "push_bundle(sys.argv[1], 'hf://org/name', private=True)"


def test_up_and_down_again_and_without_a_network(served, made, call):
    done = call(served, PUSH, made)
    assert done.out == f"{served.endpoint}/org/name/commit/{COMMIT}", done.error
    assert served.created[0]["name"] == "name" and served.created[0]["organization"] == "org"
    contents = {path.relative_to(made).as_posix(): path.read_bytes()
                for path in made.rglob("*") if path.is_file()}
    assert served.files == contents
    served.files["pytorch_model.bin"] = b"\x80\x04."  # never fetched: the manifest lacks it
    done = call(served, FETCH, "hf://org/name")
    assert done.error == "" and bundle.check_bundle(type(made)(done.out))
    assert {name for _, name in served.asked} == contents.keys()
    assert {revision for revision, name in served.asked if name != "manifest.json"} == {COMMIT}
    served.files.clear()
    assert call(served, FETCH, "hf://org/name", HF_HUB_OFFLINE="1").out == done.out


def test_what_is_not_there(served, made, call, tmp_path):
    done = call(served, FETCH, "hf://org/other")
    assert "FileNotFoundError: hf://org/other: manifest.json is neither in reach nor" in done.error
    served.files["README.md"] = b"another kind of model"
    done = call(served, FETCH, "hf://org/name")
    assert "hf://org/name: no manifest.json there, so it is no packed model" in done.error
    done = call(served, FETCH, "hf://org/name", HF_HUB_OFFLINE="1")
    assert "manifest.json is neither in reach nor in the cache" in done.error
    done = call(served, PUSH, made, HF_TOKEN="hf_wrong")
    assert "OSError: hf://org/name: not uploaded" in done.error and "hf auth login" in done.error
    assert served.files.keys() == {"README.md"}


def test_a_changed_model_is_not_uploaded(made):
    (made / "config.yaml").write_text("seed: 1\n")
    with pytest.raises(ValueError, match=r"config\.yaml changed after packing"):
        hub.push_bundle(made, "hf://org/name")


@pytest.mark.parametrize("location", ["org/name", "hf://name", "hf://a/b/c", "hf:///name"])
def test_addresses(location):
    with pytest.raises(ValueError, match="want hf://org/name or hf://org/name@revision"):
        hub.split_location(location)


def test_a_model_of_the_hub_is_loaded_like_any_other(packed, monkeypatch, test_wavs):
    monkeypatch.setattr(hub, "fetch_bundle", lambda location: packed)
    a, b = list(test_wavs.values())[:2]
    assert load_model("hf://org/name").verify(a, b) == load_model(packed).verify(a, b)


def test_the_package_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"needs the package huggingface_hub: pip install '.*hub"):
        hub.fetch_bundle("hf://org/name")
