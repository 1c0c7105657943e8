"""`python -m gptkit`, for launchers: torchrun and accelerate start modules."""

import sys

from gptkit.cli import main

if __name__ == "__main__":
    sys.exit(main())
