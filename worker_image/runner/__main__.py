"""Entry of the image. The first entry of sys.path is the directory of this file; it becomes the one above."""

import os
import sys

sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120

from runner.main import main  # noqa: E402 - after the path is set

if __name__ == "__main__":
    main(sys.argv[1:])
