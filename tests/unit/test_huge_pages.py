"""Which memory of the zygote is put into large pages."""

from __future__ import annotations

import gc
from pathlib import Path

from runner import huge_pages

MAPPING = """{range} {rights} 00000000 {device} {inode} {name}
Size:               {size} kB
KernelPageSize:        4 kB
MMUPageSize:           4 kB
Rss:                {used} kB
Pss:                {used} kB
VmFlags: rd wr mr mw me ac
"""


def mapping(begin: int, size_kib: int, **fields: object) -> str:
    usual = {"rights": "rw-p", "device": "00:00", "inode": 0, "name": "", "used": size_kib}
    return MAPPING.format(range=f"{begin:x}-{begin + size_kib * 1024:x}", size=size_kib, **{**usual, **fields})


def test_large_pages_begin_at_multiples_of_their_size_and_lie_within_one_mapping():
    assert [*huge_pages.ranges(mapping(0x7F00_0010_0000, 7 << 10))] == [
        0x7F00_0020_0000,
        0x7F00_0040_0000,
        0x7F00_0060_0000,
    ]
    assert [*huge_pages.ranges(mapping(0x7F00_0010_0000, 2 << 10))] == []


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
    assert [hex(start) for start in huge_pages.ranges(text)] == ["0x10000000", "0x10200000", "0x70000000", "0x70200000"]


def test_objects_keep_their_values_when_their_memory_moves_into_large_pages():
    held = huge_pages.gather()
    objects = [f"object {number}" for number in range(200_000)]
    held.clear()
    gc.collect()
    huge_pages.collapse()
    assert objects == [f"object {number}" for number in range(200_000)]


LIBRARY = """7f0000000000-7f0000002000 r--p 00000000 fe:00 77 /usr/lib/one.so
7f0000002000-7f0000005000 r-xp 00002000 fe:00 77 /usr/lib/one.so
7f0000005000-7f0000006000 r--p 00005000 fe:00 77 /usr/lib/one.so
7f0000006000-7f0000007000 r--p 00005000 fe:00 77 /usr/lib/one.so
7f0000007000-7f0000008000 rw-p 00006000 fe:00 77 /usr/lib/one.so
7f0000008000-7f0000009000 r--p 00000000 fe:00 78 /usr/lib/two.so
7f0000009000-7f000000a000 r-xp 00001000 fe:00 79 /usr/lib/three.so
7f000000a000-7f000000b000 r--p 00000000 00:00 0
"""


def test_mappings_of_a_library_that_follow_each_other_in_its_file_become_one():
    assert [*huge_pages.runs(LIBRARY)] == [(0x7F0000000000, 0x6000)]


def test_the_mappings_of_the_libraries_of_this_process_are_understood():
    mappings = Path("/proc/self/maps").read_text(encoding="ascii")
    assert len([*huge_pages.runs(mappings)]) > 3
