"""The old program in processes that it starts itself by `multiprocessing`, where these are not forked.

Such a process runs the program's file as its main module, as Python would without us. So this module stands in for the
file there: it makes old imports work, and then runs the file in its own place.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from multiprocessing import spawn
from typing import Any

__all__ = ["follow"]


def follow(script: str) -> None:
    """Have processes that this one spawns run the program through this module.

    Args:
        script: The program's file.
    """
    original: Callable[[str], dict[str, Any]] = spawn.get_preparation_data
    path = os.path.abspath(script)

    def preparation(name: str) -> dict[str, Any]:
        data = original(name)
        if data.get("init_main_from_path") == path:
            del data["init_main_from_path"]
            data["init_main_from_name"] = __name__
            # Last, since Python puts this module's own file first while it runs.
            data["sys_argv"] = [*data["sys_argv"], path]
        return data

    spawn.get_preparation_data = preparation


if __name__ == "__mp_main__":
    # Only there: the program itself is still to come.
    from pathlib import Path

    from fitstream.legacy.detecting import parse
    from fitstream.legacy.old_modules import install_modules
    from fitstream.legacy.running import adapt_late

    install_modules(adapt_late)
    __file__ = sys.argv[0] = sys.argv.pop()
    exec(compile(parse(Path(__file__)), __file__, "exec", dont_inherit=True))  # noqa: S102  it is the user's own program
