"""Two stores with protocols of their own: of Google's JSON API and of the Hub what reading takes."""

import json
import re
from urllib.parse import parse_qs

from object_store import ObjectStore


class GoogleStore(ObjectStore):
    """The files below a folder as the objects of any bucket."""

    def found(self, request, name, sent):
        what = re.fullmatch(r"(download/)?storage/v1/b/([^/]+)/o/(.+)", name)
        if not what:
            return 404, b"", {}
        if what[1]:
            return super().found(request, what[3], sent)
        path = self.folder / what[3]
        if not path.is_file():
            return 404, b'{"error": {"code": 404, "message": "No such object"}}', {}
        about = {"bucket": what[2], "name": what[3], "size": str(path.stat().st_size),
                 "generation": str(path.stat().st_mtime_ns)}
        return 200, json.dumps(about).encode(), {"Content-Type": "application/json"}


class HubStore(ObjectStore):
    """The files below a folder as the data set `me/videos`, at any revision."""

    def found(self, request, name, sent):
        if place := re.fullmatch(r"datasets/me/videos/resolve/[^/]+/(.+)", name):
            return super().found(request, place[1], sent)
        if re.fullmatch(r"api/datasets/me/videos(/revision/[^/]+)?", name):
            return self.answered({"id": "me/videos", "sha": "0" * 40})
        if place := re.fullmatch(r"api/datasets/me/videos/tree/[^/]+(?:/(.+))?", name):
            folder = self.folder / (place[1] or "")
            return self.answered([self.about(path) for path in sorted(folder.iterdir())]) if folder.is_dir() else (
                404, b"", {"X-Error-Code": "EntryNotFound"})
        if re.fullmatch(r"api/datasets/me/videos/paths-info/[^/]+", name):
            asked = json.loads(sent)["paths"] if sent[:1] == b"{" else parse_qs(sent.decode())["paths"]
            return self.answered([self.about(self.folder / path) for path in asked if (self.folder / path).exists()])
        return 404, b"", {"X-Error-Code": "RepoNotFound"}

    def about(self, path):
        name = path.relative_to(self.folder).as_posix()
        if path.is_dir():
            return {"type": "directory", "path": name, "oid": "0"}
        return {"type": "file", "path": name, "size": path.stat().st_size, "oid": str(path.stat().st_mtime_ns)}

    def answered(self, what):
        return 200, json.dumps(what).encode(), {"Content-Type": "application/json"}


