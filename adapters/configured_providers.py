"""The providers that are configured, each behind its guard, with their webhooks and saved methods behind the same one.

Room: adapters. Found by looking into providers/; opens nothing.
"""

from collections.abc import Callable, Mapping
from typing import Any

from payment_service.adapters.guarded import GuardedProvider, limits_for
from payment_service.adapters.guarded_methods import GuardedKeeper
from payment_service.adapters.guarded_webhooks import GuardedReader
from payment_service.adapters.providers import find_providers
from payment_service.adapters.providers.registration import Sessions
from payment_service.core.payment_method import MethodKeeper
from payment_service.core.ports import Clock, Metrics
from payment_service.core.webhooks import WebhookReader

Guards = Mapping[str, GuardedProvider]


def guarded_providers(
    settings: Any, clock: Clock, metrics: Metrics, sessions: Sessions, workers: Callable[[], int] = lambda: 1
) -> dict[str, GuardedProvider]:
    """By name. `workers`: how many that are alive share the accounts' rates."""
    return {
        name: GuardedProvider(
            found.build(settings, clock, sessions), limits_for(found, settings), clock, metrics, workers=workers
        )
        for name, found in find_providers().items()
        if found.configured(settings)
    }


def webhook_readers(settings: Any, clock: Clock, sessions: Sessions, guards: Guards) -> dict[str, WebhookReader]:
    """Of those that have what verifies their webhooks."""
    readers: dict[str, WebhookReader] = {}
    for name, found in find_providers().items():
        reader = found.webhooks(settings, clock, sessions) if name in guards and found.webhooks is not None else None
        if reader is not None:
            readers[name] = GuardedReader(reader, guards[name])
    return readers


def method_keepers(settings: Any, clock: Clock, sessions: Sessions, guards: Guards) -> dict[str, MethodKeeper]:
    """Of those that keep methods of payment."""
    return {
        name: GuardedKeeper(found.methods(settings, clock, sessions), guards[name])
        for name, found in find_providers().items()
        if name in guards and found.methods is not None
    }
