"""The type of the fixture ``visit``."""

from collections.abc import Callable
from contextlib import AbstractContextManager

from playwright.sync_api import Page

Visit = Callable[..., AbstractContextManager[Page]]
