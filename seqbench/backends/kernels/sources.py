"""What the compiled code on disk goes by, besides its own file.

numba's cache knows of changes in the file of the outermost function only, and of what that function closes over. So
the name of each function that is kept on disk changes with all the source it is compiled from (``jit.cached``).
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path


@cache
def kernel_sources() -> str:
    """A digest of all source of this package."""
    texts = (path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    return hashlib.sha256(b"\0".join(texts)).hexdigest()[:16]
