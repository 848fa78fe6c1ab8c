"""A random secret in a file: made once, then the same for every process that starts on the same DATA_DIR.

Room: adapters. For development only; production is given its secrets and keeps none on disk.
"""

import os
import secrets
from pathlib import Path

SECRET_RANDOM_BYTES = 48


def kept_secret(path: Path) -> str:
    """The secret in `path`, made (mode 0600) if it is not there yet.

    Idempotent by: the file; of two processes that make it at once, both get the first one's.
    Raises: OSError, when the folder cannot be written.
    """
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(SECRET_RANDOM_BYTES))
        try:
            os.link(draft, path)  # unlike a rename, it leaves the secret of whoever was first
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_text().strip()
