"""Runs one case in a fresh interpreter, as the runner calls it, and leaves what came of it in a file.

    python3 one.py CASE ANSWER

The streams, the seeds, `__name__`, the file name of the code and the end of the process are those of a job; nothing
else is. It shares no code with the pool.
"""

import binascii
import contextlib
import json
import linecache
import os
import random
import sys
from types import ModuleType

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from canonical import ForeignError, canonical

del sys.path[0]
FILENAME = "<job>"
_UNNAMED = {"builtins", "job", "__main__"}


def main(case_path: str, answer_path: str) -> None:
    with open(case_path, encoding="utf-8") as file:
        case = json.load(file)
    for name, content in case["files"].items():
        with open(name, "wb") as file:
            file.write(binascii.a2b_base64(content))
    for name in case["preload"]:
        __import__(name)
    _seed(case)
    answer = _answer(case)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BaseException):  # the program may have replaced it
            stream.flush()
    with open(answer_path, "w", encoding="utf-8") as file:
        json.dump(answer, file)
    os._exit(0)


def _seed(case: dict) -> None:
    random.seed(case["seed"])
    if "numpy" in case["code"] or "pandas" in case["code"]:
        import numpy as np

        np.random.seed(case["seed"])  # noqa: NPY002 - what the runner seeds


def _answer(case: dict) -> dict:
    answer = {"outcome": "ok", "type": "", "message": "", "exit_code": None, "value": "", "foreign": ""}
    try:
        value = _value(case)
    except SystemExit as end:
        code = 0 if end.code is None else end.code & 0xFF if isinstance(end.code, int) else 1
        if code == 0:
            return answer | {"exit_code": 0, "value": canonical(None)}
        return answer | {"outcome": "error", "type": "SystemExit", "message": str(end), "exit_code": code}
    except MemoryError:
        return answer | {"outcome": "memory"}
    except BaseException as raised:  # noqa: BLE001 - whatever it is, it is the result
        return answer | {"outcome": "error", "type": _name(type(raised)), "message": _message(raised)}
    try:
        return answer | {"value": canonical(value)}
    except ForeignError as error:
        return answer | {"foreign": str(error)}


def _value(case: dict) -> object:
    script, code = case["entry"] is None, case["code"]
    linecache.cache[FILENAME] = (len(code), None, code.splitlines(keepends=True), FILENAME)
    module = ModuleType("__main__" if script else "job")
    module.__file__ = FILENAME
    sys.modules[module.__name__] = module
    exec(compile(code, FILENAME, "exec", dont_inherit=True), module.__dict__)
    if script:
        return module.__dict__.get("result")
    value = module.__dict__[case["entry"]](*case["args"])
    if type(value).__name__ == "coroutine":
        import asyncio

        return asyncio.run(value)
    return value


def _name(kind: type) -> str:
    module = kind.__module__
    return kind.__qualname__ if module in _UNNAMED else f"{module}.{kind.__qualname__}"


def _message(raised: BaseException) -> str:
    try:
        return str(raised).encode("utf-8", "backslashreplace").decode()
    except BaseException as error:  # noqa: BLE001 - __str__ is the program's
        return f"<its __str__ raised {_name(type(error))}>"


if __name__ == "__main__":
    main(*sys.argv[1:])
