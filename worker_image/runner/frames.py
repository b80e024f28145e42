"""Ends a job's stack at the job's own first frame: inspect.stack(), warnings, logging and faulthandler show no runner.

A frame points to the one below it. When a frame that C code has entered ends, CPython 3.11 does not read that pointer,
so it may be cleared. `hide_callers` clears it in the next frame that begins. Other versions need the pointer, or take
longer for it, so with them the runner's frames are seen. The zygote first compares the layout with this one:

    frame object            ob_refcnt, ob_type, f_back, f_frame ──▶ the interpreter's frame
    the interpreter's frame f_func, f_globals, f_builtins, f_locals, f_code, frame_obj, previous, prev_instr,
                            stacktop (an int), is_entry (a bool)
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from ctypes import c_bool, c_void_p
from functools import partial
from types import FrameType

_FRAME, _PREVIOUS, _IS_ENTRY = 24, 48, 68
_Pointer, _Flag = c_void_p.from_address, c_bool.from_address
_profile = sys.setprofile


def _nothing() -> None:
    """Where the layout is another one."""


#: To be called right before the code of a job.
hide_callers: Callable[[], object] = _nothing
#: What a call that is traced counts more for the recursion limit.
traced = 0


def set_up() -> None:
    """In the zygote, for all children."""
    global hide_callers, traced
    if _is_known():
        hide_callers, traced = partial(_profile, _clear), 1


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
