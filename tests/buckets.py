"""A bucket in memory: what it cannot do it refuses, as an object store does."""

import io
import threading

import fsspec


class FakeBucket(fsspec.AbstractFileSystem):
    """Objects by name. No append, no rename, no empty folder; what was called is kept.

    Registered for gs://, it is what `etils.epath` finds there.
    """

    protocol = ("gs", "gcs")
    cachable = False
    objects: dict[str, bytes] = {}
    calls: list[tuple[str, str]] = []
    lock = threading.Lock()

    def _open(self, path, mode="rb", **options):
        self.calls.append((f"open {mode}", path))
        if mode == "rb":
            if path not in self.objects:
                raise FileNotFoundError(path)
            return io.BytesIO(self.objects[path])
        if mode != "wb":
            raise NotImplementedError(f"a bucket cannot open with mode {mode}")
        return _Upload(self.objects, path)

    def pipe_file(self, path, value, mode="overwrite", **options):
        path = self._strip_protocol(path)
        self.calls.append((f"pipe {mode}", path))
        with self.lock:  # one request, decided by the server
            if mode == "create" and path in self.objects:
                raise FileExistsError(path)
            self.objects[path] = bytes(value)

    def ls(self, path, detail=True, **options):
        path = self._strip_protocol(path).rstrip("/")
        found = {}
        for name, content in list(self.objects.items()):
            if name == path:
                found[name] = {"name": name, "size": len(content), "type": "file"}
            elif name.startswith(f"{path}/"):
                child = f"{path}/{name[len(path) + 1 :].partition('/')[0]}"
                kind = "file" if child == name else "directory"
                found[child] = {"name": child, "size": len(content), "type": kind}
        if not found:
            raise FileNotFoundError(path)
        return list(found.values()) if detail else list(found)

    def info(self, path, **options):
        path = self._strip_protocol(path).rstrip("/")
        if path in self.objects:
            return {"name": path, "size": len(self.objects[path]), "type": "file"}
        if any(name.startswith(f"{path}/") for name in list(self.objects)):
            return {"name": path, "size": 0, "type": "directory"}
        raise FileNotFoundError(path)

    def mkdir(self, path, create_parents=True, **options):
        """Does nothing: an object's name may hold slashes."""

    def makedirs(self, path, exist_ok=False):
        """Does nothing."""

    def rm_file(self, path):
        path = self._strip_protocol(path)
        if path not in self.objects:
            raise FileNotFoundError(path)
        del self.objects[path]

    def cp_file(self, *args, **options):
        raise NotImplementedError("a bucket cannot copy here")

    def mv(self, *args, **options):
        raise NotImplementedError("a bucket cannot rename")

    def touch(self, path, truncate=True, **options):
        raise NotImplementedError("a bucket cannot touch")


class _Upload(io.BytesIO):
    """An object appears when it is complete."""

    def __init__(self, objects, path):
        super().__init__()
        self._objects, self._path = objects, path

    def close(self):
        if not self.closed:
            self._objects[self._path] = self.getvalue()
        super().close()
