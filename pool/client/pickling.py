"""Pickles a callable for the sandbox, by value. Nothing is ever unpickled on this side.

Where a function, class or module that the callable refers to was defined decides how it is pickled:

    the standard library, site-packages   by name: the sandbox imports its own copy, or fails with ModuleNotFoundError
    `pool`                                by name: the image carries its leaf modules
    `__main__`, a notebook, a closure     by value, as cloudpickle does
    any other module, of the user         by value: it is not in the image, so its name would mean nothing there

cloudpickle has `register_pickle_by_value(module)` for the last row. That changes the whole process, also what another
library pickles in another thread; here the rule holds for one pickle only.

The source lines of functions that are pickled by value are sent too, for tracebacks: the sandbox does not have their
files.
"""

from __future__ import annotations

import io
import linecache
import operator
import pickle
import site
import sys
import sysconfig
import types
from collections.abc import Callable
from functools import cache
from typing import Any

import cloudpickle
from cloudpickle import cloudpickle as reducers

from pool.errors import InvalidJobError

_Lines = dict[str, dict[int, str]]


def pickled(target: Callable[..., object]) -> bytes:
    """Raises InvalidJobError for what cannot be pickled."""
    with io.BytesIO() as file:
        try:
            pickler = _Pickler(file)
            pickler.dump(_Sourced(target, pickler.lines))
        except (
            pickle.PicklingError,
            TypeError,
            AttributeError,
            RecursionError,
            NotImplementedError,
            ValueError,
        ) as error:
            raise InvalidJobError(
                f"code: {target!r:.80} cannot be pickled: {error!s:.300}; what a function refers to goes with it: "
                "keep connections, locks and the like out of its globals and closures, or submit source text",
                field="code",
            ) from error
        return file.getvalue()


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle's pickler, for which modules of the user are not importable."""

    def __init__(self, file: io.BytesIO) -> None:
        # Byte code ties a pickle to the Python version anyway, so the newest protocol costs no compatibility.
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.lines: _Lines = {}  #: of what was pickled by value, by its file
        self._renamers: dict[str, Callable[[types.CodeType], types.CodeType]] = {}  #: by file name

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, types.CodeType):
            # From 3.1.3 on cloudpickle replaces the file name with a constant; this sets the real one again.
            name = obj.co_filename
            renamer = self._renamers.setdefault(name, operator.methodcaller("replace", co_filename=name))
            return renamer, (_Reduced(self.dispatch_table[types.CodeType](obj)),)
        if isinstance(obj, types.FunctionType):
            by_value = self._dynamic_function_reduce if is_users(obj.__module__) else super().reducer_override
            reduced = by_value(obj)
            if reduced is not NotImplemented:
                _take_lines(obj.__code__, self.lines)
            return reduced
        if isinstance(obj, type):
            if is_users(obj.__module__):
                return reducers._dynamic_class_reduce(obj)  # noqa: SLF001 - what registering the module leads to
        elif isinstance(obj, types.ModuleType) and is_users(obj.__name__):
            # Names are set after the module is made, so that modules which import each other come to an end.
            return types.ModuleType, (obj.__name__,), _state(obj)
        return super().reducer_override(obj)


class _Reduced:
    """Pickled as `reduction` says, so that another reduction can take its object as an argument."""

    def __init__(self, reduction: tuple[object, ...]) -> None:
        self._reduction = reduction

    def __reduce__(self) -> tuple[object, ...]:
        return self._reduction


class _Sourced:
    """Unpickled it is the target, and by then its lines are where tracebacks look for them."""

    def __init__(self, target: object, lines: _Lines) -> None:
        self._target = target
        self._shown = _Shown(lines)

    def __reduce__(self) -> tuple[object, ...]:
        # The target comes first: while it is pickled its lines are found.
        return operator.getitem, ((self._target, self._shown), 0)


class _Shown:
    """A pickle has no statements; this is one."""

    def __init__(self, lines: _Lines) -> None:
        self._lines = lines

    def __reduce__(self) -> tuple[object, ...]:
        return exec, (_SHOW, {"found": self._lines})


_SHOW = """
import linecache
for name, lines in found.items():
    text = [lines.get(number, "\\n") for number in range(1, max(lines) + 1)]
    linecache.cache[name] = len(text), None, text, name
"""


def _take_lines(code: types.CodeType, found: _Lines) -> None:
    """Those of a function, and of what is defined in it; none where its file cannot be read."""
    source = linecache.getlines(code.co_filename)
    numbers = {number for *_, number in code.co_lines() if number is not None and 0 < number <= len(source)}
    if numbers:
        found.setdefault(code.co_filename, {}).update((number, source[number - 1]) for number in numbers)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            _take_lines(constant, found)


def is_users(module: str | None) -> bool:
    """Whether the module is the user's own code, which the sandbox has no copy of."""
    top = (module or "").partition(".")[0]
    if top in {"", "__main__", "pool"} or top in sys.stdlib_module_names:
        return False
    file = getattr(sys.modules.get(module or ""), "__file__", None)
    return isinstance(file, str) and not file.startswith(_installed())


@cache
def _installed() -> tuple[str, ...]:
    """The directories of installed libraries, each with a slash at its end."""
    paths = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return tuple(f"{path}/" for path in paths | {*site.getsitepackages(), site.getusersitepackages()})


def _state(module: types.ModuleType) -> dict[str, object]:
    """The module's names, without those that the import system put there and makes anew."""
    return {name: value for name, value in vars(module).items() if name not in _IMPORT_NAMES}


_IMPORT_NAMES = frozenset({"__builtins__", "__cached__", "__loader__", "__spec__"})
