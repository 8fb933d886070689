"""Files and folders that come to be there whole, or not at all.

What is being written is a draft beside its target, and its name tells the host and process that write it. Should that
process be killed, the next one to write the same target removes the draft.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MARK = ".draft-"


def write_text(path: Path, text: str) -> None:
    """Writes `text` as UTF-8 and moves it into place; makes the folder if need be."""
    prefix = _prepare(path)
    handle, draft = tempfile.mkstemp(prefix=prefix, dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(draft, 0o644)
        os.replace(draft, path)
    except BaseException:
        os.unlink(draft)
        raise


@contextmanager
def draft_folder(target: Path) -> Iterator[Path]:
    """A folder beside `target` to write into; what is not moved out of it is gone when the block ends."""
    folder = Path(tempfile.mkdtemp(prefix=_prepare(target), dir=target.parent))
    folder.chmod(0o755)  # mkdtemp makes it private
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A draft folder that becomes `target` when the block ends, and vanishes when it fails.

    Where another process has put a `target` there meanwhile, theirs stands.
    """
    with draft_folder(target) as draft:
        yield draft
        try:
            draft.replace(target)
        except OSError:
            if not target.is_dir():
                raise


def _prepare(target: Path) -> str:
    """Makes the parent folder, removes the drafts of `target` that dead processes left, and names a new one's
    prefix.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    mine = f".{target.name}{_MARK}{socket.gethostname()}-"
    for draft in target.parent.iterdir():
        if draft.name.startswith(mine) and not _is_alive(draft.name.removeprefix(mine).partition("-")[0]):
            shutil.rmtree(draft, ignore_errors=True) if draft.is_dir() else draft.unlink(missing_ok=True)
    return f"{mine}{os.getpid()}-"


def _is_alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, ValueError):
        return True
    return True
