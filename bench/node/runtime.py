"""Stands in for containerd: reads a folder's CDI specifications whenever one of them changes.

Argument: the folder. containerd 2 does the same, with its cache locked: whoever asks it for a
device meanwhile waits until all are read.
"""

import asyncio
import json
import os
import sys
from pathlib import Path

from asyncinotify import Inotify, Mask


async def main(folder: Path) -> None:
    """Read again and again, until killed."""
    with Inotify() as inotify:
        inotify.add_watch(folder, Mask.MOVED_TO)
        print("ready", flush=True)
        async for event in inotify:
            if event.name is None or event.name.suffix != ".json":
                continue
            for name in sorted(os.listdir(folder)):
                if name.endswith(".json"):
                    try:
                        json.loads((folder / name).read_bytes())
                    except FileNotFoundError:
                        continue  # swept meanwhile


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
