"""Entry of the image. The first entry of sys.path is the directory of this file; it becomes the one above."""

import gc
import os
import sys

gc.disable()  # what is imported stays; the collector would look at all of it time and again
sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120

from runner import byte_code  # noqa: E402 - after the path is set

byte_code.use(byte_code.START)

from runner.main import main  # noqa: E402 - from the byte code

if __name__ == "__main__":
    main(sys.argv[1:])
