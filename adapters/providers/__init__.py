"""The providers: one file each, found by looking at this folder.

Room: adapters.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

from payment_service.adapters.providers.registration import Registration


@cache
def find_providers() -> Mapping[str, Registration[Any]]:
    """Every module of this folder that has a `PROVIDER`, by name. Works from the sources and from a wheel."""
    found: dict[str, Registration[Any]] = {}
    for module in pkgutil.iter_modules(__path__):
        registration = getattr(importlib.import_module(f"{__name__}.{module.name}"), "PROVIDER", None)
        if registration is None:
            continue
        assert isinstance(registration, Registration), f"{module.name}.PROVIDER is no Registration"
        assert registration.name not in found, f"two providers are called {registration.name}"
        found[registration.name] = registration
    return MappingProxyType(found)
