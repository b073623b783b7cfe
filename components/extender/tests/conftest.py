"""Makes the helpers of the extender's tests importable; their names are unique in the tree."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
