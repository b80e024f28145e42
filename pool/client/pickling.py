"""A callable on its way INTO the sandbox, by value. Nothing is ever unpickled on this side.

Where a function, class or module that the callable refers to was defined decides how it travels:

    the standard library, site-packages   by name: the sandbox imports its own copy, or fails with ModuleNotFoundError
    `pool`                                by name: the image carries its leaf modules
    `__main__`, a notebook, a closure     by value, as cloudpickle does
    any other module, of the user         by value: it is not in the image, so its name would mean nothing there

cloudpickle knows the last row as `register_pickle_by_value(module)`. That is a switch of the whole process, which would
change what another library pickles in another thread; here the same rule holds for one pickle only.
"""

from __future__ import annotations

import io
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


def pickled(target: Callable[..., object]) -> bytes:
    """Raises InvalidJobError for what cannot be pickled."""
    with io.BytesIO() as file:
        try:
            _Pickler(file).dump(target)
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

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, types.FunctionType):
            if is_users(obj.__module__):
                return self._dynamic_function_reduce(obj)
        elif isinstance(obj, type):
            if is_users(obj.__module__):
                return reducers._dynamic_class_reduce(obj)  # noqa: SLF001 - what registering the module leads to
        elif isinstance(obj, types.ModuleType) and is_users(obj.__name__):
            # Names are set after the module is made, so that modules which import each other come to an end.
            return types.ModuleType, (obj.__name__,), _state(obj)
        return super().reducer_override(obj)


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
