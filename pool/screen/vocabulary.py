"""The names that the rules know: modules that a job may import, builtins, attributes. Data only."""

from __future__ import annotations

from collections.abc import Set as AbstractSet


def words(text: str) -> frozenset[str]:
    """A set from words that are separated by blanks."""
    return frozenset(text.split())


# ---- modules ----

STRICT = words(
    """
    __future__ abc bisect calendar cmath collections copy dataclasses datetime decimal enum fractions functools
    graphlib heapq itertools json math numbers operator random re statistics string textwrap time typing unicodedata
    zoneinfo numpy pandas
    """
)
STANDARD = STRICT | words(
    """
    array ast asyncio atexit base64 binascii colorsys concurrent contextlib contextvars csv difflib errno fnmatch gc
    hashlib hmac html io ipaddress keyword locale logging pprint queue reprlib secrets stringprep struct sys threading
    token tokenize tomllib traceback types typing_extensions urllib.parse uuid warnings weakref zlib
    dateutil mpmath networkx patsy polars pytz pyarrow scipy six sklearn statsmodels sympy tzdata
    """
)

#: Modules that only make sense with what no job has; the remedy says so. Those of others are what programs import most.
NETWORK = words(
    """
    ftplib http.client http.server imaplib nntplib poplib smtplib socket socketserver ssl telnetlib urllib.error
    urllib.request wsgiref xmlrpc
    aiohttp anthropic boto3 httpx openai paramiko psycopg2 pymongo redis requests selenium
    urllib3 uvicorn websocket websockets yfinance
    """
)
PROGRAMS = words("pexpect pty sh subprocess")
TERMINAL = words("curses getpass msvcrt pygame readline termios tkinter tty turtle webbrowser winreg")

#: Denied members of allowed modules: they open files, run text, reach frames, or are other modules.
DENIED = {
    "ast": "PyCF_ONLY_AST",
    "asyncio": "base_events base_subprocess create_subprocess_exec create_subprocess_shell open_connection "
    "open_unix_connection runners selector_events start_server start_unix_server unix_events",
    "concurrent.futures": "ProcessPoolExecutor process",
    "gc": "callbacks garbage get_objects get_referents get_referrers",
    "io": "FileIO OpenWrapper open open_code",
    "logging": "FileHandler config handlers",
    "numpy": "DataSource compat core ctypeslib distutils f2py fromfile fromregex load memmap rec.fromfile save savez "
    "savez_compressed lib.format lib.npyio testing.extbuild testing.rundocs testing.runstring",
    "pandas": "ExcelFile ExcelWriter HDFStore compat core eval io read_clipboard read_excel read_gbq read_hdf "
    "read_html read_pickle read_sql read_sql_query read_sql_table read_xml util",
    "six": "exec_ moves.cPickle moves.getoutput moves.http_client moves.http_server moves.reload_module "
    "moves.socketserver moves.urllib moves.xmlrpc_client moves.xmlrpc_server",
    "string": "Formatter",
    "sys": "activate_stack_trampoline addaudithook audit breakpointhook call_tracing displayhook excepthook exc_info "
    "get_asyncgen_hooks getprofile gettrace last_exc last_traceback last_value meta_path modules monitoring "
    "path_hooks path_importer_cache remote_exec set_asyncgen_hooks set_coroutine_origin_tracking_depth setdlopenflags "
    "setprofile settrace unraisablehook",
    "threading": "setprofile setprofile_all_threads settrace settrace_all_threads",
    "tokenize": "open",
    "traceback": "StackSummary TracebackException extract_stack extract_tb walk_stack walk_tb",
    "types": "CodeType FrameType new_class prepare_class resolve_bases",
    "typing": "ForwardRef evaluate_forward_ref get_type_hints",
    "typing_extensions": "ForwardRef evaluate_forward_ref get_type_hints",
    "uuid": "getnode uuid1",
}
DENIED_PARTS = frozenset(f"{module}.{member}" for module, members in DENIED.items() for member in members.split())
#: Denied also as a member of any module that imports them, under any name.
REACHED = words(
    """
    atexit bltns builtins codecs codeop copyreg ctypes encodings events fcntl gc glob importlib inspect linecache
    marshal mmap multiprocessing nt ntpath os pathlib pickle pkgutil platform posix posixpath pty resource runpy shutil
    socket ssl subprocess sys sysconfig tempfile termios webbrowser zipimport CodeType FrameType
    """
)
#: A star import of these binds classes and functions only; the denied ones are found by their names.
STARRED = words("string typing typing_extensions")


def hides_names(module: str, used: AbstractSet[str]) -> bool:
    """Whether a star import binds names that the rules have to see. `used` are the names that the program reads."""
    if module in STARRED:
        return not used.isdisjoint(DENIED[module].split())
    return module in DENIED or module == "operator"


# ---- names ----

#: Builtins and the rule for each. A name that the program defines itself is not the builtin.
BUILTINS = {
    **dict.fromkeys(("eval", "exec", "compile", "__import__", "execfile"), "S201"),
    "open": "S202",
    **dict.fromkeys(("breakpoint", "help", "copyright", "credits", "license"), "S203"),
    **dict.fromkeys(("globals", "locals", "vars"), "S204"),
    **dict.fromkeys(("getattr", "setattr", "delattr"), "S205"),
}
STRICT_BUILTINS = BUILTINS | {"input": "S203", "dir": "S204", "hasattr": "S205", "memoryview": "S204"}

#: These are harmless as plain names; as attributes, a class or a module of the job has them too.
NAMES = frozenset({"__name__", "__doc__", "__debug__", "__file__", "__annotations__", "__class__"})

_NUMBERS = words("add sub mul matmul truediv floordiv mod divmod pow lshift rshift and xor or")
_OPERATORS = [f"__{prefix}{name}__" for name in _NUMBERS for prefix in ("", "r", "i")]
_OTHERS = """
    __init__ __new__ __del__ __post_init__ __name__ __qualname__ __module__ __doc__ __slots__ __match_args__
    __annotations__ __version__ __author__ __all__ __repr__ __str__ __bytes__ __format__ __hash__ __bool__ __sizeof__
    __eq__ __ne__ __lt__ __le__ __gt__ __ge__ __cmp__ __nonzero__ __unicode__ __div__ __rdiv__ __idiv__ __neg__ __pos__
    __abs__ __invert__ __round__ __trunc__ __floor__ __ceil__ __int__ __float__ __complex__ __index__ __long__ __len__
    __length_hint__ __getitem__ __setitem__ __delitem__ __missing__ __iter__ __next__ __reversed__ __contains__
    __enter__ __exit__ __aenter__ __aexit__ __await__ __aiter__ __anext__ __call__ __get__ __set__ __delete__
    __set_name__ __setattr__ __delattr__ __getattr__ __dir__ __copy__ __deepcopy__ __getslice__ __array__
    __array_priority__ __array_ufunc__ __array_function__ __notes__ __main__ __metaclass__ __members__ __fields__
    __dataclass_fields__ __instancecheck__ __subclasscheck__ __abstractmethods__
"""
#: Attributes with two underscores that programs define and use and that give access to nothing else.
HARMLESS = words(_OTHERS).union(_OPERATORS)

#: The interpreter sets these. A program does not make them allowed by defining them.
INTERNAL = words(
    """
    __subclasses__ __base__ __bases__ __mro__ __mro_entries__ __globals__ __builtins__ __builtin__ __closure__ __code__
    __func__ __self__ __wrapped__ __loader__ __spec__ __import__ __build_class__ __defaults__ __kwdefaults__
    __traceback__ __reduce__ __reduce_ex__ __getstate__ __setstate__ __getnewargs__ __getnewargs_ex__ __subclasshook__
    __init_subclass__ __prepare__ __class_getitem__ __weakref__ __objclass__ __signature__ __text_signature__ __path__
    __package__ __cached__ __origin__ __type_params__ __evaluate__ __annotate__ __buffer__ __array_interface__
    __array_struct__ __getattribute__ __dict__ __class__ __thisclass__ __self_class__ __stdin__ __stdout__ __stderr__
    __displayhook__ __excepthook__ __interactivehook__ __context__ __cause__ __suppress_context__
    """
)
#: Methods whose definition makes a subscript, a class statement or a copy into a call of the author's choice.
HOOKS = words(
    """
    __class_getitem__ __init_subclass__ __prepare__ __mro_entries__ __subclasshook__ __reduce__ __reduce_ex__
    __set_state__ __build_class__ __import__
    """
)
#: Refused also as text, because their only use is to leave an object. Some names of INTERNAL have honest uses as text.
TELLTALES = words(
    """
    __subclasses__ __base__ __bases__ __mro__ __globals__ __builtins__ __builtin__ __closure__ __code__ __import__
    __loader__ __spec__ __build_class__ __reduce__ __reduce_ex__ __getattribute__ __class__ __self__ __func__
    __init_subclass__ __class_getitem__ __subclasshook__ __traceback__
    """
)

FRAMES = words(
    """
    tb_frame tb_next tb_lasti gi_frame gi_code gi_yieldfrom cr_frame cr_code cr_await cr_origin ag_frame ag_code
    ag_await f_back f_builtins f_code f_globals f_locals f_lasti f_lineno f_trace f_trace_lines f_trace_opcodes
    f_generator co_argcount co_cellvars co_code co_consts co_filename co_firstlineno co_flags co_freevars co_linetable
    co_lnotab co_name co_names co_nlocals co_stacksize co_varnames co_positions co_lines func_globals func_code
    func_closure func_defaults im_class im_func im_self _getframe
    """
)
#: The beginnings of those names: a computed name that begins so may be one of them.
FRAME_PREFIXES = ("tb_", "gi_", "cr_", "ag_", "f_", "co_", "func_", "im_")

#: Public names that begin with an underscore (of named tuples).
PUBLIC_UNDERSCORED = frozenset({"_", "_replace", "_asdict", "_fields", "_make", "_field_defaults"})

#: Methods of arrays and frames that write or read files and pickles, wherever they are called.
FILE_METHODS = words("tofile to_pickle to_hdf to_sql to_clipboard to_gbq read_pickle load_library load_extension")


def is_dunder(name: str) -> bool:
    return len(name) > 4 and name.startswith("__") and name.endswith("__")


def attribute_rule(name: str, own: frozenset[str] | set[str]) -> str | None:
    """The rule against an attribute for its name alone; `own` are the underscored names of the program."""
    if name in FRAMES:
        return "S302"
    if is_dunder(name) and name not in HARMLESS and (name in INTERNAL or name not in own):
        return "S301"
    return "S305" if name in FILE_METHODS else None
