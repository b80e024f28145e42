"""The files with the byte code of what a start imports: the modules are those that Python itself would have found."""

import json
import os

import pytest

from pool.assets import runner_tree
from pool.images.worker import write_tree
from tests.support.process import python

#: Imports what the two files are for, prints what each module says of itself, and what the finders keep.
REPORT = """
import json, sys
sys.path.insert(0, sys.argv[1])
from runner import byte_code
if sys.argv[2:]:
    byte_code.use(byte_code.START)
from runner import zygote, runner
import pool.sources
byte_code.release()
if sys.argv[2:]:
    byte_code.use(byte_code.LIBRARIES)
import asyncio, dataclasses, numpy, pandas
byte_code.release()
def said(module):
    spec = module.__spec__
    return [
        spec.name, type(spec.loader).__name__, spec.origin, spec.cached, spec.submodule_search_locations, spec.parent,
        spec.has_location, type(module.__loader__).__name__, getattr(module, "__file__", None),
        getattr(module, "__cached__", None), list(getattr(module, "__path__", [])), module.__package__, module.__doc__,
        spec.loader.get_code(spec.name) is not None if hasattr(spec.loader, "get_code") else None,
    ]
found = {name: said(module) for name, module in sys.modules.items() if getattr(module, "__spec__", None)}
found.pop("__main__", None)
print(json.dumps([found, [type(each).__name__ for each in sys.meta_path], sorted(map(str, sys.path_importer_cache))]))
"""


@pytest.fixture
def tree(tmp_path):
    write_tree(runner_tree(), tmp_path / "tree")
    python(tmp_path / "tree/runner/byte_code.py", check=True)
    return tmp_path / "tree"


def report(tree, *more):
    return json.loads(python("-c", REPORT, tree, *more, check=True).stdout)


def test_a_module_from_a_file_is_like_one_that_python_has_found(tree):
    plain, finders, _ = report(tree)
    from_file, same_finders, looked_into = report(tree, "from the files")
    assert from_file == plain
    assert same_finders == finders
    for package in (str(tree / "pool"), "/pandas/core/"):  # it was the files, then
        assert not [each for each in looked_into if package in f"{each}/"], package


def test_a_file_of_another_python_or_none_leaves_all_to_python(tree):
    for name in ("byte-code", "byte-code-libraries"):
        content = (tree / name).read_bytes()
        (tree / name).write_bytes(b"\0\0\0\0" + content[4:])
    _, _, looked_into = report(tree, "from the files")
    assert str(tree / "pool") in looked_into
    assert [each for each in looked_into if each.endswith("/pandas/core")]
    for name in ("byte-code", "byte-code-libraries"):
        (tree / name).unlink()
    assert report(tree, "from the files")[2] == looked_into


#: Imports what the two files are for. Prints the expressions that Python's own compiler was asked for meanwhile, those
#: of which it would make something else than what was in a file, and which function compiles the later ones.
EXPRESSIONS = """
import json, sys
sys.path.insert(0, sys.argv[1])
from runner import byte_code
from re import _compiler, _parser
asked, parse, compiler = [], _parser.parse, _compiler.compile
_parser.parse = lambda text, *more: asked.append(str(text)) or parse(text, *more)
for file, names in (byte_code.START, "runner.zygote runner.runner"), (byte_code.LIBRARIES, "asyncio numpy pandas"):
    byte_code.use(file)
    for name in names.split():
        __import__(name)
    byte_code.release()
import re
others = [str(made.pattern) for (_, text, flags), made in re._cache.items() if made != compiler(text, flags)]
print(json.dumps([asked[: -len(re._cache)], others, len(re._cache), _compiler.compile is compiler]))
"""


def test_regular_expressions_come_from_the_files_and_are_what_python_makes_of_them(tree):
    environment = os.environ | {"PYTHONHASHSEED": "0"}  # that of workers
    asked, others, count, restored = json.loads(python("-c", EXPRESSIONS, tree, check=True, env=environment).stdout)
    assert (asked, others, restored) == ([], [], True)
    assert count > 50
    for name in ("byte-code", "byte-code-libraries"):
        (tree / name).unlink()
    assert len(json.loads(python("-c", EXPRESSIONS, tree, check=True, env=environment).stdout)[0]) > 50
