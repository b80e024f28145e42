"""Does what a page of the documentation says: writes its files, runs its commands, and compares what they print.

```yaml       the configuration
```python     a file, whose name is in its first line: # NAME.py
```console    `$ command` or `user$ command`, then what it prints; ... stands for anything, `&` leaves it running
"""

import doctest
import grp
import re
from contextlib import ExitStack

from tests.newcomer.place import NOBODY, ROOT, TAG

#: A group that every Debian has, in place of the one on the page.
GROUP = "games"
_BLOCK = re.compile(r"^```(yaml|python|console)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_COMMAND = re.compile(r"^(user)?\$ (.*)\n((?:(?!(?:user)?\$ ).*\n)*)", re.MULTILINE)
_STATUS = re.compile(r"\[exit status (\d+)\]\n\Z")
_SAME = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def follow(page, place):
    """Raises AssertionError at the first command that prints something else than the page says."""
    with ExitStack() as running:
        for kind, text in _BLOCK.findall((ROOT / page).read_text()):
            if kind == "yaml":
                own = text.replace("quants", GROUP).replace("  default:\n", f"  default:\n    image: {TAG}\n")
                place.config.write_text(_here(own, place))
            elif kind == "python":
                (place.home / text.split()[1]).write_text(text)
            else:
                for user, command, expected in _COMMAND.findall(text):
                    _do(command, expected, place=place, as_user=bool(user), running=running)


def _here(text, place):
    return text.replace("/etc/pool", str(place.home)).replace("/srv/pool", str(place.home))


def _do(command, expected, *, place, as_user, running):
    if command.endswith(" &"):
        running.enter_context(place.daemon(command.removesuffix(" &")))
        return
    line = _here(command, place).replace("image build", f"image build --tag {TAG}")
    become = _become_a_member() if as_user else ()
    status = _STATUS.search(expected)
    said = place.run(*become, "sh", "-c", f"{line} 2>&1", status=int(status[1]) if status else 0)
    wanted = _here(_STATUS.sub("", expected), place)
    assert doctest.OutputChecker().check_output(wanted, said, _SAME), f"$ {command}\n{said}\ninstead of\n{wanted}"


def _become_a_member():
    """The interpreter of the tests may lie in the home of root, so a member may read, and only read, everything."""
    group = grp.getgrnam(GROUP).gr_gid
    reads = ("--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search")
    return ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", f"--groups={group}", *reads)
