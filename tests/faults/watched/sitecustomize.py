"""Python runs this when it starts with this folder in PYTHONPATH: it watches for connections from the first line on."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))
import connections

sys.path.pop()
connections.watch()
