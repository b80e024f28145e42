"""Upper bounds of messages, jobs and results. Both sides apply them."""

#: A header holds names and numbers only; 64 KiB leaves room for 256 file names and an environment.
MAX_HEADER_BYTES = 64 * 1024
#: Files, one frame each, and the out-of-band buffers of large arrays.
MAX_FRAMES = 1024
#: One frame. libzmq disconnects a peer that sends more (ZMQ_MAXMSGSIZE), before the bytes are in memory.
MAX_FRAME_BYTES = 256 * 1024 * 1024
#: Source text. `ast.parse` of 1 MB of short lines takes 2 s and 500 MB, so a program has to stay well below.
MAX_CODE_BYTES = 1024 * 1024
#: All payload frames of a Submit together.
MAX_JOB_BYTES = 256 * 1024 * 1024
#: A frame of arguments from this size on is not sent to the worker: the job maps it from the daemon's file.
MAPPED_BYTES = 1024 * 1024
#: Calls of one chunk. Each has a frame of arguments, or several, and one frame of the answer.
MAX_CALLS = 500
#: The answer of a chunk may be so many times the largest answer of one job. A chunk ends with the call that takes it
#: over what one job may answer.
CHUNK_ANSWERS = 2
#: Frames of an answer before its files: stdout, stderr and error.
FIXED_FRAMES = 3
#: Files that one job can leave.
MAX_FILES_OUT = 200
#: Bytes of output in one Printed or Output, and the shortest interval at which a runner sends Printed.
MAX_PRINTED_BYTES = 64 * 1024
PRINT_INTERVAL_S = 0.01
