"""The byte code of the modules that starts import, in two files of the image.

A start imports 200 modules of the runner, its libraries and the standard library, and pandas 500 more. For each of them
Python looks into several directories, and opens and reads a file. With one file for all, the imports take four fifths
of the time.

    python3 /opt/pool/runner/byte_code.py    a step of the build, inside the image: imports what starts import, and
                                             writes the files

The files also have the regular expressions that these modules compile, of which Python's own compiler, which is written
in Python, makes 60 in 3 ms. What it has made of the same expression is the same in each start.

A module that came from a file is like any other, with the loader that Python would have given it. Where there is no
such file, as in a checkout, or where another Python has written it, Python's own finders find all modules.
"""

from __future__ import annotations

import _sre  # type: ignore[import-not-found]
import marshal
import mmap
import os
import sys
from importlib._bootstrap import ModuleSpec
from importlib._bootstrap_external import MAGIC_NUMBER, ExtensionFileLoader, SourceFileLoader

TYPE_CHECKING = False  # without the module typing, and other modules that come from the file
if TYPE_CHECKING:
    from types import CodeType, ModuleType
    from typing import Any

#: The directory of the tree, and the files in it: for each start, and for those that preload modules.
TREE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120 - before pathlib is there
START, LIBRARIES = f"{TREE}/byte-code", f"{TREE}/byte-code-libraries"
#: What the processes of a worker import at their start, and with the first large message.
_IMPORTED = ("runner.main", "runner.zygote", "runner.runner", "pool.sources", "zmq.utils.garbage")
#: What most templates preload; an image may lack some.
_PRELOADED = ("asyncio", "dataclasses", "numpy", "pandas")
#: The module that compiles regular expressions.
_COMPILER = "re._compiler"
#: Python's number for its byte code, and where the index ends.
_HEAD_BYTES = len(MAGIC_NUMBER) + 8


class _Loader(SourceFileLoader):
    """An ordinary loader, once it has its code."""

    def exec_module(self, module: ModuleType) -> None:
        code = _finder.code(module.__name__)
        self.__class__ = SourceFileLoader  # type: ignore[assignment]
        exec(code, module.__dict__)  # noqa: S102
        if module.__name__ == _COMPILER:
            _finder.compile_for(module)


class _Finder:
    """Comes before Python's own finders, until the imports of a start are done."""

    def __init__(self) -> None:
        self._content = memoryview(b"")
        self._places: dict[str, tuple[int, int]] = {}  #: begin and end of each module's byte code
        self._origins: dict[str, tuple[str, str | None, bool]] = {}  #: file, file of byte code, whether it is a package
        self._absent: frozenset[str] = frozenset()  #: what is asked for, and the image does not have
        #: What the compiler has made of each expression with its flags.
        self._patterns: dict[tuple[Any, int], tuple[Any, ...]] = {}
        self._compiler: Any = None  #: the module whose `compile` is replaced
        self._compile: Any = None  #: its own
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
            self._places, self._origins, self._absent, self._patterns, self.sources = index
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

    def compile_for(self, compiler: Any) -> None:
        self._compiler, self._compile = compiler, compiler.compile
        compiler.compile = self._compiled

    def _compiled(self, pattern: object, flags: int = 0) -> object:
        made = self._patterns.get((pattern, flags))
        return self._compile(pattern, flags) if made is None else _sre.compile(*made)

    def close(self) -> None:
        if self._compiler is not None:
            self._compiler.compile = self._compile
        self.__init__()  # type: ignore[misc]


_finder = _Finder()


def use(file: str) -> None:
    """Import from START or LIBRARIES, if it is there."""
    _finder.open(file)
    sys.meta_path.insert(0, _finder)
    if _COMPILER in sys.modules:
        _finder.compile_for(sys.modules[_COMPILER])


def sources() -> str:
    """The digest of the tree whose byte code this is; "" without a file."""
    return _finder.sources


def release() -> None:
    """Leave later imports to Python."""
    if _finder in sys.meta_path:
        sys.meta_path.remove(_finder)
    _finder.close()


# ---- the build ----


class _Recorder:
    """Comes after all other finders, so it is asked for what they have not found."""

    def __init__(self) -> None:
        self.absent: set[str] = set()

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> None:
        self.absent.add(name)


class _PatternRecorder:
    """Notes what the compiler of regular expressions makes of each."""

    def __init__(self) -> None:
        import re  # noqa: F401 - for the module that compiles
        from types import SimpleNamespace

        compiler: Any = sys.modules[_COMPILER]
        self.made: dict[tuple[object, int], tuple[object, ...]] = {}
        self._asked: tuple[object, int] = "", 0
        self._compile = compiler.compile
        vars(compiler).update(compile=self._ask, _sre=SimpleNamespace(**vars(_sre) | {"compile": self._make}))

    def _ask(self, pattern: object, flags: int = 0) -> object:
        self._asked = pattern, int(flags)
        return self._compile(pattern, flags)

    def _make(self, pattern: object, flags: int, code: list[int], *groups: object) -> object:
        if type(pattern) in {str, bytes}:
            # As plain numbers: some of them are instances of a class of re, which marshal does not take.
            self.made[self._asked] = pattern, int(flags), [*map(int, code)], *groups
        return _sre.compile(pattern, flags, code, *groups)


def write() -> None:
    """Import what starts import, and write the files."""
    recorder = _Recorder()
    sys.meta_path.append(recorder)
    patterns = _PatternRecorder()
    for name in _IMPORTED:
        __import__(name)
    start = _specs()
    _write(START, start, frozenset(recorder.absent), patterns.made)
    patterns.made = {}
    for name in _PRELOADED:
        try:
            __import__(name)
        except ImportError:
            continue
    # Libraries also ask by other means what is there, so none is said to be absent.
    _write(LIBRARIES, {name: spec for name, spec in _specs().items() if name not in start}, frozenset(), patterns.made)


def _write(
    file: str,
    specs: dict[str, ModuleSpec],
    absent: frozenset[str],
    patterns: dict[tuple[object, int], tuple[object, ...]],
) -> None:
    from pathlib import Path

    from pool.sources import digest, read_tree

    content, places, origins = bytearray(), {}, {}
    for name, spec in specs.items():
        origins[name] = spec.origin, spec.cached, spec.submodule_search_locations is not None
        if isinstance(spec.loader, SourceFileLoader):
            code = marshal.dumps(spec.loader.get_code(name))
            places[name] = len(content), len(content) + len(code)
            content += code
    index = marshal.dumps((places, origins, absent, patterns, digest(read_tree(Path(TREE)))))
    end = (_HEAD_BYTES + len(index)).to_bytes(_HEAD_BYTES - len(MAGIC_NUMBER), "little")
    Path(file).write_bytes(b"".join((MAGIC_NUMBER, end, index, content)))
    Path(file).chmod(0o644)


def _specs() -> dict[str, ModuleSpec]:
    """Of the modules that come from files."""
    found = {name: getattr(module, "__spec__", None) for name, module in list(sys.modules.items())}
    return {
        name: spec
        for name, spec in found.items()
        if isinstance(spec, ModuleSpec)
        and spec.name == name
        and isinstance(spec.loader, SourceFileLoader | ExtensionFileLoader)
    }


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # tokenize makes an expression of a set, in the order that workers have
        os.execve(sys.executable, sys.orig_argv, os.environ | {"PYTHONHASHSEED": "0"})  # noqa: S606
    sys.path[0] = TREE
    write()
