"""Pickles a callable for the sandbox, by value. Nothing is ever unpickled on this side.

Where a function, class or module that the callable refers to was defined decides how it is pickled:

    the standard library, libraries       by name: the sandbox imports its own copy, or fails with ModuleNotFoundError
    `__main__`, a notebook, a closure     by value, as cloudpickle does
    any other module, of the user         by value: it is not in the image, so its name would mean nothing there
    `pool`                                by value too: a job cannot import the runner's copy. Of the module itself
                                          only `pool.datasets` travels

A library is what was installed, wherever it lies: in site-packages of any interpreter, or in a directory of PYTHONPATH
that has the metadata of its package (`pip install --target`).

cloudpickle has `register_pickle_by_value(module)` for the other rows. That changes the whole process, also what another
library pickles in another thread; here the rule holds for one pickle only.

The source lines of functions that are pickled by value are sent too, for tracebacks: the sandbox does not have their
files.
"""

from __future__ import annotations

import builtins
import functools
import io
import linecache
import operator
import pickle
import types
from collections.abc import Callable, Mapping
from typing import Any

import cloudpickle
from cloudpickle import cloudpickle as reducers

from pool.client.in_job import datasets
from pool.client.installed import is_users
from pool.errors import InvalidJobError

_Lines = dict[str, dict[int, str]]
_CACHE = type(functools.cache(len))
_Members = dict[str, dict[str, object]]


def pickled(target: Callable[..., object]) -> bytes:
    """Raises InvalidJobError for what cannot be pickled."""
    with io.BytesIO() as file:
        try:
            pickler = _Pickler(file)
            pickler.dump(_Sourced(target, pickler.lines, pickler.members))
        except (
            pickle.PicklingError,
            TypeError,
            AttributeError,
            RecursionError,
            NotImplementedError,
            ValueError,
        ) as error:
            place = _culprit(target, set())
            raise InvalidJobError(
                f"code: {target!r:.80} cannot be pickled: {place and f'{place}: '}{error!s:.300}; what a function "
                "refers to goes with it: keep connections, locks and the like out of its globals and closures, or "
                "submit source text",
                field="code",
            ) from error
        return file.getvalue()


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle's pickler, for which modules of the user are not importable."""

    def __init__(self, file: io.BytesIO) -> None:
        # Byte code ties a pickle to the Python version anyway, so the newest protocol costs no compatibility.
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.lines: _Lines = {}  #: of what was pickled by value, by its file
        self.members: _Members = {}  #: what was pickled by value, by its module and name
        self._reductions: dict[int, tuple[object, ...]] = {}  #: of decorated functions, by id
        self._renamers: dict[str, Callable[[types.CodeType], types.CodeType]] = {}  #: by file name

    def reducer_override(self, obj: Any) -> Any:
        if obj is datasets:
            return functools.partial, (getattr, builtins, "datasets")  # where a job's callable finds them
        if _by_value(obj):
            if "." not in getattr(obj, "__qualname__", "."):
                self.members.setdefault(obj.__module__, {})[obj.__qualname__] = obj
            if isinstance(obj, _CACHE) or _is_single_dispatch(obj):
                return self._decorated(obj)
        return self._reduced(obj)

    def _decorated(self, obj: Any) -> tuple[object, ...]:
        """The same reduction each time: a function that calls itself by its name is met again inside its own pickle."""
        if id(obj) not in self._reductions:
            self._reductions[id(obj)] = _cached(obj) if hasattr(obj, "cache_parameters") else _dispatched(obj)
        return self._reductions[id(obj)]

    def _reduced(self, obj: Any) -> Any:
        if (reduction := _of_functools(obj)) is not None:
            return reduction
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
            state = {"datasets": datasets} if obj.__name__ == "pool" else _state(obj)
            return types.ModuleType, (obj.__name__,), state
        return super().reducer_override(obj)


class _Reduced:
    """Pickled as `reduction` says, so that another reduction can take its object as an argument or call it."""

    def __init__(self, reduction: tuple[object, ...]) -> None:
        self._reduction = reduction

    def __reduce__(self) -> tuple[object, ...]:
        return self._reduction

    def __call__(self) -> object:
        raise NotImplementedError("it is called where it is unpickled")


def _by_value(obj: Any) -> bool:
    if not isinstance(obj, (types.FunctionType, type, _CACHE)):
        return False
    return obj.__module__ == "__main__" or is_users(obj.__module__)


def _cached(obj: Any) -> tuple[object, ...]:
    """functools.lru_cache and cache: decorated anew, with an empty cache."""
    parameters = obj.cache_parameters()
    decorator = _Reduced((functools.lru_cache, (parameters["maxsize"], parameters["typed"])))
    return decorator, (obj.__wrapped__,)


def _of_functools(obj: Any) -> tuple[object, ...] | None:
    """What decorators of functools make and what cannot be pickled as it is: without its lock and its caches."""
    if type(obj) is functools.cached_property:
        return functools.cached_property, (obj.func,), {key: value for key, value in vars(obj).items() if key != "lock"}
    if type(obj) is functools.singledispatchmethod:
        return functools.singledispatchmethod, (obj.func,), {"func": obj.func, "dispatcher": obj.dispatcher}
    if isinstance(obj, types.FunctionType) and obj.__qualname__ == "singledispatch.<locals>.dispatch":
        # From Python 3.13 on a bound method refers to this one, and not to the function that it belongs to.
        registry = dict(zip(obj.__code__.co_freevars, obj.__closure__ or (), strict=True))["registry"].cell_contents
        return operator.attrgetter("dispatch"), (_Reduced(_registered(registry[object], registry)),)
    return None


def _is_single_dispatch(obj: Any) -> bool:
    return isinstance(getattr(obj, "registry", None), types.MappingProxyType) and hasattr(obj, "dispatch")


def _dispatched(obj: Any) -> tuple[object, ...]:
    """functools.singledispatch: decorated anew, then each implementation is registered."""
    return _registered(obj.__wrapped__, obj.registry)


def _registered(function: object, registry: Mapping[type, object]) -> tuple[object, ...]:
    fresh = _Reduced((functools.singledispatch, (function,)))
    others = [(kind, each) for kind, each in registry.items() if kind is not object]
    registered = [_Reduced((operator.methodcaller("register", *each), (fresh,))) for each in others]
    return operator.getitem, ((fresh, *registered), 0)


# ---- what cannot be pickled ----

_MOST_DEPTH = 8
_MOST_PARTS = 200


def _culprit(target: object, seen: set[int], depth: int = 0) -> str:
    """The path to the innermost part that cannot be pickled; "" if no part can be blamed."""
    seen.add(id(target))
    for name, part in _parts(target)[:_MOST_PARTS]:
        if id(part) not in seen and depth < _MOST_DEPTH and not _travels(part):
            inner = _culprit(part, seen, depth + 1)
            return f"{name}, {inner}" if inner else f"{name} ({type(part).__module__}.{type(part).__qualname__})"
    return ""


def _travels(part: object) -> bool:
    try:
        _Pickler(io.BytesIO()).dump(part)
    except Exception:  # noqa: BLE001 - a part may raise anything when it is pickled
        return False
    return True


def _parts(obj: Any) -> list[tuple[str, object]]:  # noqa: PLR0911 - one for each kind of object
    """What is pickled along with an object, by names for an error message."""
    if isinstance(obj, functools.partial):
        return [("the function of the partial", obj.func), *_items(obj.args), *_entries(obj.keywords)]
    if isinstance(obj, types.MethodType):
        return [("its object", obj.__self__), ("its function", obj.__func__)]
    if isinstance(obj, _CACHE):
        return [("the function it wraps", obj.__wrapped__)]
    if isinstance(obj, types.FunctionType):
        return _parts_of_function(obj)
    if isinstance(obj, (list, tuple, set, frozenset)):
        return _items(obj)
    if isinstance(obj, dict):
        return _entries(obj)
    held = vars(obj) if hasattr(obj, "__dict__") else {}
    word = "the name" if isinstance(obj, types.ModuleType) else "the attribute"
    return [(f"{word} {name!r}", value) for name, value in held.items() if name not in _IMPORT_NAMES]


def _parts_of_function(function: types.FunctionType) -> list[tuple[str, object]]:
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=False)
    closure = [(f"the variable {name!r} of its closure", cell.cell_contents) for name, cell in cells if _filled(cell)]
    names = [name for name in _names(function.__code__) if name in function.__globals__]
    defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    return [
        *closure,
        *((f"the global {name!r}", function.__globals__[name]) for name in names),
        *((f"the default value {value!r:.40}", value) for value in defaults),
    ]


def _names(code: types.CodeType) -> list[str]:
    inner = [name for each in code.co_consts if isinstance(each, types.CodeType) for name in _names(each)]
    return [*code.co_names, *inner]


def _filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - an empty cell raises
    except ValueError:
        return False
    return True


def _items(values: Any) -> list[tuple[str, object]]:
    return [(f"the item {index}", value) for index, value in enumerate(values)]


def _entries(values: Any) -> list[tuple[str, object]]:
    return [(f"the value of {key!r:.40}", value) for key, value in values.items()]


# ---- what goes along ----


class _Sourced:
    """Unpickled it is the target, and by then its lines are where tracebacks look for them."""

    def __init__(self, target: object, lines: _Lines, members: _Members) -> None:
        self._target = target
        self._shown = _Shown(lines, members)

    def __reduce__(self) -> tuple[object, ...]:
        # The target comes first: while it is pickled its lines are found.
        return operator.getitem, ((self._target, self._shown), 0)


class _Shown:
    """A pickle has no statements; this is one."""

    def __init__(self, lines: _Lines, members: _Members) -> None:
        self._lines = lines
        self._members = members

    def __reduce__(self) -> tuple[object, ...]:
        members = {module: dict(names) for module, names in self._members.items()}
        return exec, (_SHOW, {"found": self._lines, "members": members})


#: Makes lines known to tracebacks, and classes and functions to pickle, typing and dataclasses.
_SHOW = """
import linecache, sys, types
for module, names in members.items():
    vars(sys.modules.setdefault(module, types.ModuleType(module))).update(names)
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


def _state(module: types.ModuleType) -> dict[str, object]:
    """The module's names, without those that the import system put there and makes anew."""
    return {name: value for name, value in vars(module).items() if name not in _IMPORT_NAMES}


_IMPORT_NAMES = frozenset({"__builtins__", "__cached__", "__loader__", "__spec__"})
