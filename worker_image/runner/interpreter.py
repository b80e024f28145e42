"""Makes the interpreter of a child look and end like one that was started by `python job.py` in the work directory.

Before the job: `__main__`, sys.argv, sys.path and sys.modules show nothing of the runner. After it: threads are joined,
exit handlers run and open files are written out, in the order in which Python does that at the end of a program.

The functions of the runner stay usable after their modules were taken out of sys.modules. They must not import anything
of `runner` or `pool` by name from then on.
"""

from __future__ import annotations

import _io
import atexit
import builtins
import contextlib
import ctypes
import gc
import io
import linecache
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib.machinery import SourceFileLoader
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import cast

from runner.fault import FILENAME

#: What a job's file is called, in sys.argv and in its work directory.
SCRIPT = "job.py"
ROOT = str(Path(__file__).resolve().parent.parent)
_OWN = frozenset({"pool", "runner"})
#: Modules that a plain interpreter has imported before it looks into the directory of the program.
_IMPORTED_AT_START = frozenset(sys.builtin_module_names) | {
    "__main__", "_collections_abc", "_sitebuiltins", "abc", "codecs", "encodings", "genericpath", "io", "os",
    "posixpath", "site", "stat", "zipimport",
}  # fmt: skip
#: Restores the builtins, whatever the job did to them. A partial looks up no name when it is called.
_restore_builtins = partial(vars(builtins).update, dict(vars(builtins)))
#: CPython 3.11 counts changes of a dict there, so that most jobs need not touch the page of each builtin object.
_builtins_version = ctypes.c_uint64.from_address(id(vars(builtins)) + 24)
_VERSIONED = sys.version_info < (3, 12)
_trace, _profile = sys.settrace, sys.setprofile
#: Taken now, because a job may replace them in their modules.
_run_exit_handlers, _count_exit_handlers = atexit._run_exitfuncs, atexit._ncallbacks  # noqa: SLF001
_threads, _starting = threading._active, threading._limbo  # type: ignore[attr-defined] # noqa: SLF001
_join_threads = threading._shutdown  # type: ignore[attr-defined] # noqa: SLF001
_flush_c = ctypes.CDLL(None).fflush
_IO = frozenset({"io", "_io"})
#: Modules whose objects have no __del__, and complete or remove a file at their end.
_CLOSING = frozenset({"_sqlite3", "_gdbm", "_dbm"})
#: By module, what its exit handlers look at. Besides, they wait for threads and processes.
_REGISTRIES: dict[str, Callable[[ModuleType], Iterable[object]]] = {
    "logging": attrgetter("_handlerList"),
    "multiprocessing.util": attrgetter("_finalizer_registry"),
    "threading": attrgetter("_threading_atexits"),
    "weakref": attrgetter("finalize._registry"),
}
#: What sys has of an exception that ended the program. It holds the variables of all functions that it went through.
_LAST = ("last_type", "last_value", "last_traceback")
_STANDARD = ("stdout", "__stdout__", "stderr", "__stderr__")
_get_limit, _set_limit = sys.getrecursionlimit, sys.setrecursionlimit
_USUAL_LIMIT = 1000


class _State:
    """What the child had before its job."""

    def __init__(self) -> None:
        self.modules: list[ModuleType] = []  #: kept alive for the functions of the runner
        self.names: dict[str, dict[str, object]] = {}  #: what the modules of programs have, by module
        self.builtins_version: int | None = None
        self.work = ""  #: the directory of the job's own modules
        self.exit_handlers = 0
        #: What the exit handlers look at, with its content. None: there are exit handlers that are not known.
        self.registries: list[tuple[Iterable[object], list[object]]] | None = None


_before = _State()  #: an attribute of an object is found in fewer pages than one of a class


def hide(work: Path) -> None:
    """In the zygote, for all children: show nothing of the runner. Looking at all modules copies many pages."""
    _take_out(_OWN | {"__main__"})
    _before.work = str(work)
    sys.path[:] = [_before.work, *(path for path in sys.path if path != ROOT)]
    for path in [path for path in sys.path_importer_cache if path.startswith(ROOT)]:
        del sys.path_importer_cache[path]
    _before.names = {name: _names_of(name, _before.work) for name in ("__main__", "job")}
    sys.modules["__main__"] = sys.modules["__mp_main__"] = new_module("__main__")
    _set_argv(())
    _note_registries()
    note_what_is_there()
    if _VERSIONED:
        _restore_builtins()
        _before.builtins_version = _builtins_version.value


def note_thread(pid: int) -> None:
    """Of a child, whose first thread has the number of its process. A fork does not note it."""
    threading.main_thread()._native_id = pid  # type: ignore[attr-defined] # noqa: SLF001


def show_arguments(argv: Sequence[str], files: Sequence[str]) -> None:
    """Of a job that has some. `files`: the names of the files that were sent along."""
    _set_argv(argv)
    if shadowed := _shadowed(files):
        _take_out(shadowed)


def _set_argv(argv: Sequence[str]) -> None:
    sys.argv = [SCRIPT, *argv]
    sys.orig_argv = [sys.executable, *sys.argv]


def _take_out(packages: frozenset[str]) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in packages]:
        _before.modules.append(sys.modules.pop(name))


def _shadowed(files: Iterable[str]) -> frozenset[str]:
    """Preloaded modules for which the job has a file or a package of the same name: the job's own is imported."""
    own = {name.removesuffix(".py") for name in files if name.endswith(".py") and "/" not in name}
    packages = {name.removesuffix("/__init__.py") for name in files if name.endswith("/__init__.py")}
    return frozenset(own | packages) - _IMPORTED_AT_START


def new_module(name: str, source: str | None = None) -> ModuleType:
    """An empty module with what the module of a program has.

    Tracebacks and inspect see its source, by the file name in the byte code and by the file of the module.
    """
    module = ModuleType(name)
    names = _before.names.get(name) or _names_of(name, os.getcwd())  # noqa: PTH109
    vars(module).update(names, __annotations__={})
    file = cast("str", module.__file__)
    if source is not None:
        lines = list(io.StringIO(source, newline=None))
        if lines and not lines[-1].endswith("\n"):
            lines[-1] += "\n"  # as linecache reads a file: where a traceback marks a line depends on it
        linecache.cache[FILENAME] = (len(source), None, lines, FILENAME)
        linecache.cache[file] = (len(source), None, lines, file)
    return module


def _names_of(module: str, directory: str) -> dict[str, object]:
    file = f"{directory}/{SCRIPT}"
    loader = SourceFileLoader(module, file)
    return {"__builtins__": builtins, "__file__": file, "__cached__": None, "__loader__": loader}


def restoring(function: Callable[..., object], *arguments: object) -> object:
    """Call code of the job, then undo what it did to the interpreter."""
    try:
        return function(*arguments)
    finally:
        _trace(None)
        _profile(None)
        if _get_limit() < _USUAL_LIMIT:
            _set_limit(_USUAL_LIMIT)
        if _builtins_version.value != _before.builtins_version:
            _restore_builtins()


# ---- the end ----


def _note_registries() -> None:
    """If there are no exit handlers but those of the standard library."""
    loaded = [name for name in _REGISTRIES if name in sys.modules]
    known = len({"logging", "multiprocessing.util"}.intersection(loaded)) + weakref.finalize._registered_with_atexit  # type: ignore[attr-defined] # noqa: SLF001
    if _count_exit_handlers() == known:
        found = [_REGISTRIES[name](sys.modules[name]) for name in loaded]
        _before.registries = [(each, list(each)) for each in found]


def note_what_is_there() -> None:
    """In the zygote, and after a warm-up. What is there belongs to no job, so `finish` need not look at it."""
    _before.exit_handlers = _count_exit_handlers()
    gc.freeze()


def has_exit_work(*, handlers: bool = True) -> bool:
    """Whether code of the job may still run: a thread or process that Python waits for, or an exit handler."""
    try:
        started = sys.modules.get("multiprocessing.process")
        processes = started is not None and started._children  # noqa: SLF001
        if processes or ((len(_threads) > 1 or _starting) and _waited_for()):
            return True
        return handlers and _count_exit_handlers() != _before.exit_handlers
    except BaseException:  # noqa: BLE001 - the job has replaced what is used here
        return True


def _waited_for() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if not each.daemon and each is not threading.main_thread()]


def finish(take_module: Callable[[], ModuleType], *, working: bool) -> None:
    """Do what Python does at the end of a program. `take_module`: its caller has the only reference to the job's.

    `working`: whether `has_exit_work`.
    """
    found = _before.registries
    nothing_to_handle = found is not None and not working and all(list(each) == held for each, held in found)
    # Exit handlers that would find nothing to do are spared: they touch a hundred pages.
    handled = () if nothing_to_handle else (_join_threads, _run_exit_handlers)
    for step in (*handled, flush, partial(_end_objects, take_module)):
        try:  # noqa: SIM105 - each job pays for contextlib.suppress()
            restoring(step)
        except BaseException:  # noqa: BLE001, S110 - the job may have replaced anything that this uses
            pass


def flush() -> None:
    """Write out what was printed. A job that closed or replaced its streams is not an error."""
    for name in _STANDARD:
        try:  # noqa: SIM105
            getattr(sys, name).flush()
        except BaseException:  # noqa: BLE001, S110 - the stream may be any object by now, or missing
            pass
    _flush_c(None)  # what libraries have printed with the functions of C


def _end_objects(take_module: Callable[[], ModuleType]) -> None:
    """Only if there are any that do something at their end, because each look at all objects takes long."""
    closing = any(map(sys.modules.__contains__, _CLOSING))  # isdisjoint would look at the name of each module
    if closing or any(hasattr(kind, "__del__") for kind in set(map(type, gc.get_objects()))):  # files have it too
        for step in (_flush_files, partial(_drop, take_module, closing=closing), _close_files):
            with contextlib.suppress(BaseException):
                restoring(step)


def _drop(take_module: Callable[[], ModuleType], *, closing: bool) -> None:
    """Forget all names if there are objects that do something at their end, such as archives and temporary files.

    Not while other threads run: they would find their names gone, whereas at Python's own end they no longer run.
    """
    kinds = [kind for kind in _kinds() if hasattr(kind, "__del__") and kind.__module__ not in _IO]
    if (kinds or closing) and threading.active_count() == 1:
        kinds.clear()  # a class holds its module
        for name in _LAST:
            vars(sys).pop(name, None)
        sys.modules.setdefault("tracemalloc", cast("ModuleType", None))  # warnings advise to use it if it is there
        _forget(take_module)


def _forget(take_module: Callable[[], ModuleType]) -> None:
    """As Python does: what only the modules hold is collected; then the modules that something else holds lose their
    names, those with one underscore first. The module of the program is the last.
    """
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    if gc.isenabled():  # the order of what is collected next comes from this
        _as_sys(_as_sys, gc.collect)
    own = _take_out_own(take_module)
    left = [weakref.ref(each) for each in own]
    _as_sys(_as_sys, own.clear)
    _as_sys(_as_sys, gc.collect)
    for module in left:
        names = {} if (held := module()) is None else vars(held)
        texts = [name for name in names if type(name) is str and name != "__builtins__"]
        in_turn = sorted(texts, key=lambda name: name[:1] != "_" or name[1:2] == "_")
        _as_sys(_as_sys, names.update, dict.fromkeys(in_turn))
    _as_sys(_as_sys, gc.collect)


#: Calls a function. At the end of Python a warning, and one of its caller, is about this place.
_NOWHERE, _LINE = ("<sys>", 0) if sys.version_info >= (3, 13) else ("sys", 1)
_as_sys = eval(compile("lambda function, *arguments: function(*arguments)", _NOWHERE, "eval"))  # noqa: S307 - a constant
_as_sys.__code__ = _as_sys.__code__.replace(co_firstlineno=_LINE)


def _take_out_own(take_module: Callable[[], ModuleType]) -> list[ModuleType]:
    """The modules that the program has imported from its directory, the last one first, and the program."""
    modules, work = [each for each in sys.modules.values() if type(each) is ModuleType], f"{_before.work}/"
    program = take_module()
    imported = [each for each in modules if each is not program and str(vars(each).get("__file__")).startswith(work)]
    own = [*reversed(imported), program]
    for name in [name for name, module in sys.modules.items() if any(module is each for each in own)]:
        del sys.modules[name]
    return own


def _kinds() -> set[type]:
    return set(map(type, gc.get_objects()))


def _flush_files() -> None:
    """Write out what the files of the io module hold: text before bytes, for text files write to those of bytes."""
    files = _open_files()
    for each in sorted(files, key=lambda each: not isinstance(each, io.TextIOWrapper)):
        if type(each).__module__ in _IO:
            with contextlib.suppress(BaseException):  # a full disk
                each.flush()


def _close_files() -> None:
    """Close the files of Python code, such as gzip's, then write out what these have written."""
    for each in _open_files():
        if type(each).__module__ not in _IO:
            with contextlib.suppress(BaseException):
                each.close()
    _flush_files()


def _open_files() -> list[io.IOBase]:
    kinds = {kind for kind in _kinds() if _io._IOBase in type.mro(kind)}  # noqa: SLF001
    return [each for each in gc.get_objects() if type(each) in kinds]
