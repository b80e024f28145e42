"""The byte code of the modules that each start imports, in one file of the image.

A start imports 200 modules of the runner, its libraries and the standard library. For each of them Python looks into
several directories, and opens and reads a file. With one file these imports take four fifths of the time.

    python3 /opt/pool/runner/byte_code.py    a step of the build, inside the image: imports what a start imports, and
                                             writes the file

A module that came from the file is like any other, with the loader that Python would have given it. Where there is no
such file, as in a checkout, or where another Python has written it, Python's own finders find all modules.
"""

from __future__ import annotations

import marshal
import mmap
import os
import sys
from importlib._bootstrap import ModuleSpec
from importlib._bootstrap_external import MAGIC_NUMBER, ExtensionFileLoader, SourceFileLoader

TYPE_CHECKING = False  # without the module typing, and other modules that come from the file
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType, ModuleType

#: The directory of the tree, and the file in it.
TREE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120 - before pathlib is there
FILE = f"{TREE}/byte-code"
#: What the processes of a worker import at their start, and with the first large message.
_IMPORTED = ("runner.main", "runner.zygote", "runner.runner", "pool.sources", "zmq.utils.garbage")
#: Python's number for its byte code, and where the index ends.
_HEAD_BYTES = len(MAGIC_NUMBER) + 8


class _Loader(SourceFileLoader):
    """An ordinary loader, once it has its code."""

    def exec_module(self, module: ModuleType) -> None:
        code = _finder.code(module.__name__)
        self.__class__ = SourceFileLoader  # type: ignore[assignment]
        exec(code, module.__dict__)  # noqa: S102


class _Finder:
    """Comes before Python's own finders, until the imports of a start are done."""

    def __init__(self) -> None:
        self._content = memoryview(b"")
        self._places: dict[str, tuple[int, int]] = {}  #: begin and end of each module's byte code
        self._origins: dict[str, tuple[str, str | None, bool]] = {}  #: file, file of byte code, whether it is a package
        self._absent: frozenset[str] = frozenset()  #: what is asked for, and the image does not have
        self.sources = ""  #: the digest of the sources that the byte code is from; "" without a file

    def open(self, path: str) -> None:
        try:
            with open(path, "rb", buffering=0) as file:  # noqa: PTH123
                content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except FileNotFoundError:
            return
        if content[: len(MAGIC_NUMBER)] == MAGIC_NUMBER:
            end = int.from_bytes(content[len(MAGIC_NUMBER) : _HEAD_BYTES], "little")
            index = marshal.loads(content[_HEAD_BYTES:end])  # noqa: S302 - root has written it, in the build
            self._places, self._origins, self._absent, self.sources = index
            self._content = content[end:]

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        if name in self._absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        found = self._origins.get(name)
        if found is None:
            return None
        origin, cached, package = found
        loader = _Loader(name, origin) if name in self._places else ExtensionFileLoader(name, origin)
        spec = ModuleSpec(name, loader, origin=origin, is_package=package)
        spec.has_location, spec.cached = True, cached
        if spec.submodule_search_locations is not None:
            spec.submodule_search_locations.append(origin.rpartition("/")[0])
        return spec

    def code(self, name: str) -> CodeType:
        begin, end = self._places[name]
        found: CodeType = marshal.loads(self._content[begin:end])  # noqa: S302
        return found


_finder = _Finder()


def use() -> None:
    """Import from the file, if there is one."""
    _finder.open(FILE)
    sys.meta_path.insert(0, _finder)


def sources() -> str:
    """The digest of the tree whose byte code this is; "" without a file."""
    return _finder.sources


def release() -> None:
    """Leave later imports to Python."""
    if _finder in sys.meta_path:
        sys.meta_path.remove(_finder)
    _finder.__init__()  # type: ignore[misc]


# ---- the build ----


class _Recorder:
    """Comes after all other finders, so it is asked for what they have not found."""

    def __init__(self) -> None:
        self.absent: set[str] = set()

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> None:
        self.absent.add(name)


def write() -> None:
    """Import what a start imports, and write the file."""
    from pathlib import Path

    recorder = _Recorder()
    sys.meta_path.append(recorder)
    for name in _IMPORTED:
        __import__(name)
    content, places, origins = bytearray(), {}, {}
    for name, spec in _specs():
        origins[name] = spec.origin, spec.cached, spec.submodule_search_locations is not None
        if isinstance(spec.loader, SourceFileLoader):
            code = marshal.dumps(spec.loader.get_code(name))
            places[name] = len(content), len(content) + len(code)
            content += code
    from pool.sources import digest, read_tree

    index = marshal.dumps((places, origins, frozenset(recorder.absent), digest(read_tree(Path(TREE)))))
    end = (_HEAD_BYTES + len(index)).to_bytes(_HEAD_BYTES - len(MAGIC_NUMBER), "little")
    Path(FILE).write_bytes(b"".join((MAGIC_NUMBER, end, index, content)))
    Path(FILE).chmod(0o644)


def _specs() -> Iterator[tuple[str, ModuleSpec]]:
    """Of the modules that come from files."""
    for name, module in list(sys.modules.items()):
        spec = getattr(module, "__spec__", None)
        if isinstance(spec, ModuleSpec) and isinstance(spec.loader, SourceFileLoader | ExtensionFileLoader):
            yield name, spec


if __name__ == "__main__":
    sys.path[0] = TREE
    write()
