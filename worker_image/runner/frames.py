"""Ends a job's stack at the job's own first frame: inspect.stack(), warnings, logging and faulthandler show no runner,
and the recursion limit does not count it.

A frame points to the one below it. When a frame that C code has entered ends, CPython 3.11 does not read that pointer,
so it may be cleared. `hide_callers` clears it in the next frame that begins. Other versions need the pointer, or take
longer for it, so with them the runner's frames are seen. The zygote first compares the layout with this one:

    frame object            ob_refcnt, ob_type, f_back, f_frame ──▶ the interpreter's frame
    the interpreter's frame f_func, f_globals, f_builtins, f_locals, f_code, frame_obj, previous, prev_instr,
                            stacktop (an int), is_entry (a bool)
    the thread's state      ... how many further calls it may make (an int), the recursion limit (an int) ...
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from ctypes import c_bool, c_int, c_void_p, pythonapi
from functools import partial
from types import FrameType

_FRAME, _PREVIOUS, _IS_ENTRY = 24, 48, 68
_Pointer, _Flag = c_void_p.from_address, c_bool.from_address
_profile, _set = sys.setprofile, c_int.value.__set__  # type: ignore[attr-defined, misc]
_get_state = pythonapi.PyThreadState_Get
_get_state.restype = c_void_p
_STATE_INTS = 32
_USUAL_LIMIT, _UNUSUAL_LIMIT = 1000, 12_347


def _nothing() -> None:
    """Where the layout is another one."""


#: To be called right before the code of a job.
hide_callers: Callable[[], object] = _nothing
#: To be called right before those, and before `exec`.
forget_depth: Callable[[], object] = _nothing


def set_up() -> None:
    """In the zygote, for all children."""
    global hide_callers, forget_depth
    sys.setrecursionlimit(_USUAL_LIMIT)
    known, left = _is_known(), _find_calls_left()
    hide_callers, forget_depth = (
        partial(_profile, _clear) if known else _nothing,
        _nothing if left is None else partial(_set, left, _USUAL_LIMIT - known),  # a call that is traced counts twice
    )


def _find_calls_left() -> c_int | None:
    """Where CPython counts down the calls of this thread. It is found by the limit that follows it."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(_UNUSUAL_LIMIT)
    try:
        numbers = (c_int * _STATE_INTS).from_address(_get_state())
        for at in [at for at, number in enumerate(numbers) if number == _UNUSUAL_LIMIT]:
            left = c_int.from_address(_get_state() + 4 * (at - 1))
            if left.value - _value_in_a_call(left) == 1:
                return left
    finally:
        sys.setrecursionlimit(limit)
    return None


def _value_in_a_call(number: c_int) -> int:
    return number.value


def _is_known() -> bool:
    """Whether this interpreter's frames are laid out as above."""
    if sys.version_info[:2] != (3, 11) or sys.implementation.name != "cpython":
        return False
    called_by_c: list[tuple[int | None, int | None, bool]] = list(map(_facts, [0]))
    called_by_python = _facts(0)
    own = _address(sys._getframe())  # noqa: SLF001
    return [*called_by_c, called_by_python] == [(own, own, True), (own, own, False)]


def _facts(_: int) -> tuple[int | None, int | None, bool]:
    frame = sys._getframe()  # noqa: SLF001
    assert frame.f_back is not None
    address = _address(frame)
    return _address(frame.f_back), _Pointer(address + _PREVIOUS).value, _Flag(address + _IS_ENTRY).value


def _address(frame: FrameType) -> int:
    return _Pointer(id(frame) + _FRAME).value or 0


def _clear(frame: FrameType, event: str, _: object) -> None:
    """Called for each event of the interpreter, until the first frame begins."""
    if event == "call":
        _profile(None)
        if _Flag(_address(frame) + _IS_ENTRY).value:
            _Pointer(_address(frame) + _PREVIOUS).value = None
