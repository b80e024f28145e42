"""What fits: the most that one message, one job or one answer may have. Both sides hold to it."""

from __future__ import annotations

#: A header holds names and numbers only; 64 KiB leaves room for 256 file names and an environment.
MAX_HEADER_BYTES = 64 * 1024
#: Files, one frame each, and the out-of-band buffers of large arrays.
MAX_FRAMES = 1024
#: One frame. libzmq drops the peer that sends more (ZMQ_MAXMSGSIZE), before the bytes are in memory.
MAX_FRAME_BYTES = 256 * 1024 * 1024
#: Source text. `ast.parse` of 1 MB of short lines takes 2 s and 500 MB, so a program has to stay well below.
MAX_CODE_BYTES = 1024 * 1024
#: All payload frames of a Submit together.
MAX_JOB_BYTES = 256 * 1024 * 1024
#: Files that one job can leave.
MAX_FILES_OUT = 200
#: Output in one Printed or Output; and how often a runner that was asked for it says what is new, at most.
MAX_PRINTED_BYTES = 64 * 1024
PRINT_INTERVAL_S = 0.01
