"""README from the top, as a new user follows it: the wheel in an empty environment, without the checkout."""

from pathlib import Path

import pytest

from tests.newcomer import place as newcomer

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

#: What README's example returns when it is written without float().
NUMPY_SCALAR = """
from pool import Client
with Client() as client:
    print(client.run("import numpy\\nresult = numpy.float64(3)").reason)
"""


def test_readme_works_line_by_line_in_an_empty_environment(place):
    (start,) = newcomer.blocks("README.md", "sh")
    install, build, daemon, *commands = [line.partition("#")[0].strip() for line in start.splitlines()]
    place.shell(install)
    assert newcomer.TAG in place.shell(build)
    with place.daemon(daemon):
        for command in commands:
            assert "default" in place.shell(command)
        for number, code in enumerate(newcomer.blocks("README.md", "python")):
            file = place.home / f"example{number}.py"
            file.write_text(code)
            assert place.run("python", file).splitlines() == newcomer.promised(code)
        assert "pip install 'warm-container-pool[values]'" in place.run("python", "-c", NUMPY_SCALAR)
        assert str(place.home / "env") in place.run("python", "-c", "import pool; print(pool.__file__)")
        unit = place.run("python", "-c", "from pool import assets; print(assets.systemd_unit())").strip()
        assert "ExecStart=" in Path(unit).read_text()
