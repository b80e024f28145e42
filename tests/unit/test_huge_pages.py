"""Which memory of the zygote is put into large pages."""

import ctypes
import gc
import itertools
import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from runner import huge_pages, kernel
from runner.huge_pages import mappings

MAPPING = """{range} {rights} {offset:08x} {device} {inode} {name}
Size:               {size} kB
KernelPageSize:        4 kB
MMUPageSize:           4 kB
Rss:                {used} kB
Pss:                {used} kB
Anonymous:          {written} kB
VmFlags: rd wr mr mw me {accounted}
"""


def mapping(begin: int, size_kib: int, **fields: object) -> str:
    usual = {
        "rights": "rw-p", "offset": 0, "device": "00:00", "inode": 0, "name": "", "used": size_kib, "accounted": "ac", "written": 0
    }  # fmt: skip
    return MAPPING.format(range=f"{begin:x}-{begin + size_kib * 1024:x}", size=size_kib, **{**usual, **fields})


def test_large_pages_begin_at_multiples_of_their_size_and_lie_within_one_mapping():
    assert [*huge_pages.ranges(mappings(mapping(0x7F00_0010_0000, 7 << 10)))] == [
        0x7F00_0020_0000,
        0x7F00_0040_0000,
        0x7F00_0060_0000,
    ]
    assert [*huge_pages.ranges(mappings(mapping(0x7F00_0010_0000, 2 << 10)))] == []


def test_only_anonymous_memory_that_is_in_use_is_put_into_large_pages():
    text = "".join(
        [
            mapping(0x1000_0000, 4 << 10, name="[heap]"),
            mapping(0x2000_0000, 4 << 10, used=1 << 10),
            mapping(0x3000_0000, 4 << 10, rights="r--p"),
            mapping(0x4000_0000, 4 << 10, rights="rw-s"),
            mapping(0x5000_0000, 4 << 10, inode=77, device="fe:00", name="/usr/lib/library.so"),
            mapping(0x6000_0000, 4 << 10, name="[stack]"),
            mapping(0x7000_0000, 4 << 10),
        ]
    )
    found = [hex(start) for start in huge_pages.ranges(mappings(text))]
    assert found == ["0x10000000", "0x10200000", "0x70000000", "0x70200000"]


def imported(body):
    """The values that this code prints, and the mappings of its process. It has one of its own, because in this one
    objects may lie in what earlier tests have left free.
    """
    code = f"import mmap, sys\nsys.path[:] = sys.argv[1:]\nfrom runner import huge_pages\n{body}\n"
    code += "print(open('/proc/self/smaps').read())"
    done = subprocess.run([sys.executable, "-c", code, *sys.path], check=True, capture_output=True, text=True)
    values, _, smaps = done.stdout.partition("\n")
    return [int(each) for each in values.split()], mappings(smaps)


def test_objects_that_are_made_while_libraries_are_imported_lie_together():
    """Other memory is mapped meanwhile, as libraries are. Arenas of Python have 1 MiB."""
    arenas, found = imported("""
objects, others = [], []
with huge_pages.gathering():
    for _ in range(40):
        objects += [f"object {number}" for number in range(10_000)]
        others.append(mmap.mmap(-1, 1 << 20))
print(*{id(each) >> 20 for each in objects})
""")
    arenas = set(arenas)
    together = max((_run(arenas, first) for first in arenas if first - 1 not in arenas), key=len)
    assert len(together) >= 8
    end = next(each.end for each in found if each.start <= together[-1] << 20 < each.end)
    assert end <= together[-1] + 1 << 20, "what is left over was given back"


def test_stacks_of_frames_leave_no_gaps_between_the_objects_of_libraries():
    """Python takes memory for them from the same allocator, 16 KiB at a time, and gives it back soon."""
    (last,), found = imported("""
def depth(left):
    return 1 + depth(left - 1) if left else 0

with huge_pages.gathering():
    assert depth(800) == 800
    objects = [f"object {number}" for number in range(200_000)]
print(id(objects[-1]))
""")
    gathered = next(each for each in found if each.start <= last < each.end)
    assert gathered.end % (1 << 20) == 0


def test_libraries_whose_objects_take_all_the_memory_that_was_set_aside_are_imported_too(monkeypatch):
    """The kernel may place it so that nothing in front of it is lost, and then nothing of it is left over."""
    huge, room = 2 << 20, kernel.map_room
    monkeypatch.setattr(huge_pages, "_ARENAS_BYTES", 4 << 20)
    monkeypatch.setattr(huge_pages.kernel, "map_room", lambda size: -(-room(size + huge) // huge) * huge)
    with huge_pages.gathering():
        objects = [f"object {number}" for number in range(200_000)]
    assert objects[-1] == "object 199999"


def _run(arenas, first):
    return [*itertools.takewhile(arenas.__contains__, itertools.count(first))]


def test_objects_keep_their_values_when_their_memory_moves_into_large_pages():
    with huge_pages.gathering():
        objects = [f"object {number}" for number in range(200_000)]
    gc.collect()
    huge_pages.collapse()
    assert objects == [f"object {number}" for number in range(200_000)]


def library(*parts: tuple[int, str, int, str]) -> str:
    """Parts of one file: where, rights, place in the file, and whether it was ever writable."""
    return "".join(
        mapping(
            at, 4, rights=rights, offset=offset, accounted=accounted, inode=77, device="fe:00", name="/usr/lib/a.so"
        )
        for at, rights, offset, accounted in parts
    )


LIBRARY = library(
    (0x7F00_0000_0000, "r--p", 0x0000, ""),
    (0x7F00_0000_1000, "r-xp", 0x1000, ""),
    (0x7F00_0000_2000, "r--p", 0x2000, ""),
    (0x7F00_0000_3000, "r--p", 0x2000, "ac"),  # protected by the dynamic linker
    (0x7F00_0000_4000, "rw-p", 0x3000, "ac"),
)


def test_mappings_of_a_library_that_follow_each_other_in_its_file_become_one():
    other = mapping(0x7F00_0000_5000, 4, rights="r--p", inode=78, device="fe:00", accounted="")
    assert [*huge_pages.runs(mappings(LIBRARY + other))] == [(0x7F00_0000_0000, 0x3000)]


def test_what_the_dynamic_linker_has_protected_becomes_one_with_the_variables_behind_it():
    assert [*huge_pages.sealed(mappings(LIBRARY))] == [(0x7F00_0000_3000, 0x1000)]


def test_constants_that_were_never_written_stay_apart_from_the_variables_behind_them():
    constants = library((0x7F00_0000_0000, "r--p", 0x0000, ""), (0x7F00_0000_1000, "rw-p", 0x1000, "ac"))
    assert [*huge_pages.sealed(mappings(constants))] == []


def variables(begin: int, size_kib: int, **fields: object) -> str:
    """Of a library: all written."""
    usual = {"inode": 77, "device": "fe:00", "name": "/usr/lib/a.so", "written": size_kib}
    return mapping(begin, size_kib, **{**usual, **fields})


def behind(begin: int, size_kib: int, **fields: object) -> str:
    """Memory that is not of a file."""
    return variables(begin, size_kib, **{"inode": 0, "device": "00:00", "name": "", **fields})


def groups(*texts: str) -> list[tuple[int, int]]:
    return [*huge_pages.groups(mappings("".join(texts)))]


def test_variables_of_a_library_and_memory_behind_them_are_a_group():
    libraries = variables(0x1000_0000, 8), behind(0x1000_2000, 4), variables(0x1000_3000, 4), behind(0x2000_0000, 4)
    assert groups(*libraries) == [(0x1000_0000, 16 << 10)]


@pytest.mark.parametrize(
    "other",
    [
        behind(0x1000_2000, 1 << 10),
        behind(0x1000_2000, 128, written=4),
        behind(0x1000_3000, 4),
        behind(0x1000_2000, 4, name="[stack]"),
        behind(0x1000_2000, 4, accounted="ac wf"),
        variables(0x1000_2000, 4, rights="r-xp"),
        variables(0x1000_2000, 4, rights="rw-s"),
    ],
    ids=["of objects", "hardly used", "elsewhere", "a stack", "empty in a child", "code", "shared"],
)
def test_other_memory_belongs_to_no_group(other):
    assert groups(variables(0x1000_0000, 8), other) == []


MERGING = """
import ctypes, decimal, hashlib, json, sqlite3, ssl, zlib
used = lambda: (hashlib.sha256(b"x").hexdigest(), str(decimal.Decimal(1) / 3), json.dumps([1.5, None]), zlib.crc32(b"x"),
    sqlite3.connect(":memory:").execute("select 1 + 1").fetchone(), ssl.create_default_context().verify_mode.value)
huge_pages.merge_libraries()
before, found = used(), [*huge_pages.groups(huge_pages._own())]
content = [ctypes.string_at(*each) for each in found]
huge_pages.merge_variables()
same = [ctypes.string_at(*each) == old for each, old in zip(found, content)]
print(len(found), same.count(False), len([*huge_pages.groups(huge_pages._own())]), int(used() == before))
"""


@pytest.mark.skipif(os.uname().machine not in huge_pages._MOVING, reason="no machine code for this machine")
def test_groups_of_variables_become_one_mapping_each_with_the_same_content():
    """Not the content of the interpreter's own group, which changes from one line to the next."""
    (groups, changed, left, same), _ = imported(MERGING)
    assert groups > 1
    assert changed <= 2
    assert left == 0
    assert same


def test_on_a_machine_without_machine_code_the_variables_stay_as_they_are(monkeypatch):
    monkeypatch.setattr(huge_pages, "_own", lambda: pytest.fail("it looks for variables"))
    monkeypatch.setattr(huge_pages, "_MOVING", {})
    huge_pages.merge_variables()


def test_the_mappings_of_the_libraries_of_this_process_are_understood():
    found = mappings(Path("/proc/self/smaps").read_text(encoding="ascii"))
    rights = [line.split()[1] for line in Path("/proc/self/maps").read_text(encoding="ascii").splitlines()]
    assert len(found) == len([each for each in rights if each.endswith("p")])
    assert len([*huge_pages.runs(found)]) > 3
    assert len([*huge_pages.sealed(found)]) > 3


def test_what_was_read_of_files_is_unmapped_and_comes_again_but_not_what_was_written():
    def used():
        return sum(each.used_bytes for each in mappings(Path("/proc/self/smaps").read_text("ascii")) if each.constant)

    digest, before = zlib.crc32(_code_of_libc()), used()
    huge_pages.release_files(threads=True)
    assert used() < before / 2
    assert zlib.crc32(_code_of_libc()) == digest
    changed = [each.accounted for each in mappings(LIBRARY) if each.constant]
    assert changed == [False] * 3


def test_variables_of_a_library_are_unmapped_only_if_they_are_as_in_the_file():
    unread, written = (
        mappings(mapping(0x1000_0000, 8, inode=77, device="fe:00", written=written))[0] for written in (0, 4)
    )
    assert (unread.unwritten, written.unwritten) == (True, False)
    assert not mappings(mapping(0x1000_0000, 8, name="[stack]"))[0].unwritten
    assert not mappings(mapping(0x1000_0000, 8, rights="r--p", name="[vvar]", accounted=""))[0].constant


def test_a_child_that_has_warmed_up_unmaps_libraries_that_the_zygote_does_not_use(monkeypatch):
    smaps = "".join(
        mapping(at, 8, rights="r-xp", accounted="", inode=inode, device="fe:00", used=used)
        for at, inode, used in ((0x1000_0000, 77, 4), (0x2000_0000, 78, 0))
    )
    monkeypatch.setattr(huge_pages, "_own", lambda: mappings(smaps))
    assert [step.arguments[:2] for step in huge_pages.releasing()] == [(0x2000_0000, 8 << 10)]


def _code_of_libc():
    start = ctypes.cast(ctypes.CDLL(None).abs, ctypes.c_void_p).value // 4096 * 4096
    return ctypes.string_at(start, 4096)
