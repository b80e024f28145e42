"""Entry of the image: isolated mode leaves this directory off the path, so it is put there by hand."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from runner.main import main

if __name__ == "__main__":
    main(sys.argv[1:])
