"""Which modules a job may import, and what of them it may not reach. Mostly data; `Modules` answers for one policy."""

from __future__ import annotations

from itertools import pairwise

from pool.screen.policy import Policy
from pool.screen.words import words

STRICT = words(
    """
    __future__ abc bisect calendar cmath collections copy dataclasses datetime decimal enum fractions functools
    graphlib heapq itertools json math numbers operator random re statistics string textwrap time typing unicodedata
    zoneinfo numpy pandas
    """
)
STANDARD = STRICT | words(
    """
    array ast asyncio base64 binascii colorsys concurrent contextlib contextvars csv difflib errno fnmatch hashlib hmac
    html io ipaddress keyword locale logging pprint queue reprlib secrets stringprep struct threading token tokenize
    tomllib traceback types typing_extensions urllib.parse uuid warnings weakref zlib
    dateutil mpmath networkx patsy polars pytz pyarrow scipy six sklearn statsmodels sympy tzdata
    """
)

#: Of an allowed module, what is not: it opens files, runs text, reaches frames, or is a module of another kind.
_DENIED = {
    "ast": "PyCF_ONLY_AST",
    "asyncio": "base_events base_subprocess create_subprocess_exec create_subprocess_shell open_connection "
    "open_unix_connection runners selector_events start_server start_unix_server unix_events",
    "concurrent.futures": "ProcessPoolExecutor process",
    "io": "FileIO OpenWrapper open open_code",
    "logging": "FileHandler config handlers",
    "numpy": "DataSource compat core ctypeslib distutils f2py fromfile load memmap save savez savez_compressed "
    "lib.format lib.npyio testing.extbuild",
    "pandas": "ExcelFile ExcelWriter HDFStore compat core eval io read_clipboard read_excel read_gbq read_hdf "
    "read_html read_pickle read_sql read_sql_query read_sql_table read_xml util",
    "string": "Formatter",
    "threading": "setprofile setprofile_all_threads settrace settrace_all_threads",
    "tokenize": "open",
    "traceback": "StackSummary TracebackException extract_stack extract_tb walk_stack walk_tb",
    "types": "CodeType FrameType new_class prepare_class resolve_bases",
    "typing": "ForwardRef evaluate_forward_ref get_type_hints",
    "typing_extensions": "ForwardRef evaluate_forward_ref get_type_hints",
    "uuid": "getnode uuid1",
}
_DENIED_PARTS = frozenset(f"{module}.{member}" for module, members in _DENIED.items() for member in members.split())
#: Also not through a module that happens to import them, under whatever name it has them.
_REACHED = words(
    """
    atexit bltns builtins codecs codeop copyreg ctypes encodings events fcntl gc glob importlib inspect linecache
    marshal mmap multiprocessing nt ntpath os pathlib pickle pkgutil platform posix posixpath pty resource runpy shutil
    socket ssl subprocess sys sysconfig tempfile termios webbrowser zipimport CodeType FrameType
    """
)


class Modules:
    """What one policy says about a dotted name."""

    def __init__(self, policy: Policy) -> None:
        listed = STRICT if policy.strict else STANDARD
        self._allowed = listed | frozenset(policy.allow_modules)
        self._denied = frozenset(policy.deny_modules)
        self._added = frozenset(policy.allow_modules)

    def allows(self, name: str) -> bool:
        """The longest listed name that this one is, or is below, decides; where both lists have it, it is denied."""
        for prefix in _prefixes(name):
            if prefix in self._denied:
                return False
            if prefix in self._allowed:
                return True
            if prefix in _DENIED_PARTS:
                return False
        return False

    def denies_member(self, path: str) -> bool:
        """Whether what an allowed module has at `path` (such as `numpy.f2py`) is not to be reached.

        A pool that allows numpy does not allow `numpy.f2py` with it; it would have to name that.
        """
        for prefix in _prefixes(path):
            if prefix in self._denied:
                return True
            if prefix in self._added:
                break
            if prefix in _DENIED_PARTS:
                return True
        parts = path.split(".")
        return any(part in _REACHED and part not in self._added for part in parts[1:]) or any(
            f"{parent}.{part}" in _DENIED_PARTS for parent, part in pairwise(parts[1:])
        )


def _prefixes(name: str) -> list[str]:
    """`a.b.c`, `a.b`, `a`."""
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(min(len(parts), 16), 0, -1)]


def hides_names(module: str) -> bool:
    """Whether a star import would bring in what is to be seen by name."""
    return module in _DENIED or module == "operator"
