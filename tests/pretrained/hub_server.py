"""A stand-in for the Hugging Face hub's HTTP interface, on this machine: reads and writes.

It answers what `huggingface_hub` asks when files are fetched, when a repository is described or
created, and when a folder is uploaded (check of the card, preupload, Git LFS batch, commit).
"""

import base64
import contextlib
import hashlib
import http.server
import json
import pathlib
import threading
import urllib.parse

import yaml

COMMIT = "0" * 39 + "1"


class Handler(http.server.BaseHTTPRequestHandler):
    """`server.repos`: name -> folder; `server.gated`, `server.token`, `server.asked`: as named."""

    def do_HEAD(self):
        self._file(body=False)

    def do_GET(self):
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        if path.startswith("/api/models/"):
            self._describe(path.removeprefix("/api/models/").partition("/revision/")[0])
        else:
            self._file(body=True)

    def do_PUT(self):
        content = self._body()
        self.server.objects[hashlib.sha256(content).hexdigest()] = content
        self._json({})

    def do_POST(self):
        path, body = urllib.parse.urlsplit(self.path).path, self._body()
        if self.headers.get("Authorization") != f"Bearer {self.server.token}":
            return self._refuse(401, "")
        if path == "/api/repos/create":
            given = json.loads(body)
            name = f"{given['organization']}/{given['name']}"
            folder = self.server.root / name
            folder.mkdir(parents=True, exist_ok=True)
            self.server.repos[name] = folder
            return self._json({"url": f"{self._address()}/{name}"})
        if path == "/api/validate-yaml":
            head = yaml.safe_load(json.loads(body)["content"].split("---")[1])
            errors = [] if head.get("license") else [{"message": "license is missing"}]
            return self._json({"errors": errors, "warnings": []})
        if path.endswith("/preupload/main"):
            files = [{"path": f["path"], "uploadMode": "lfs" if f["path"].endswith(".safetensors")
                      else "regular", "shouldIgnore": False} for f in json.loads(body)["files"]]
            return self._json({"files": files})
        if path.endswith("/info/lfs/objects/batch"):
            where = {"upload": {"href": f"{self._address()}/put"}}
            objects = [o | {"actions": where} for o in json.loads(body)["objects"]]
            return self._json({"objects": objects, "transfer": "basic"})
        return self._commit(path.removeprefix("/api/models/").removesuffix("/commit/main"), body)

    def _commit(self, name, body):
        folder = self.server.repos[name]
        for line in body.decode().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                (folder / value["path"]).write_bytes(base64.b64decode(value["content"]))
            elif entry["key"] == "lfsFile":
                (folder / value["path"]).write_bytes(self.server.objects[value["oid"]])
        self._json({"commitUrl": f"{self._address()}/{name}", "commitOid": COMMIT})

    def _describe(self, name):
        folder = self.server.repos.get(name)
        if folder is None:
            return self._refuse(401, "RepoNotFound")
        files = [{"rfilename": p.name, "size": p.stat().st_size} for p in sorted(folder.iterdir())]
        self._json({"id": name, "sha": COMMIT, "siblings": files,
                    "cardData": {"license": self.server.licence}})  # fmt: skip

    def _file(self, body):
        self.server.asked.append(self.path)
        name, _, rest = urllib.parse.urlsplit(self.path).path[1:].partition("/resolve/")
        if name in self.server.gated:
            return self._refuse(403, "GatedRepo")
        path = self.server.repos.get(name, pathlib.Path("/nowhere")) / rest.partition("/")[2]
        if not path.is_file():
            return self._refuse(404, "EntryNotFound")
        content = path.read_bytes()
        sent = content[: len(content) // 2] if path.name in self.server.broken else content
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{path.name}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(sent)

    def _refuse(self, status, code):
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _json(self, content):
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _body(self):
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _address(self):
        return f"http://127.0.0.1:{self.server.server_port}"

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving(root):
    """The running stand-in; repositories are folders below `root`."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.root, server.repos, server.objects, server.asked = root, {}, {}, []
        server.gated, server.broken, server.token, server.licence = set(), set(), "secret", "mit"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
