"""The console's plain words for what the service says in its own: states, flags, events.

Room: web.
"""

from collections.abc import Mapping

STATUSES: Mapping[str, tuple[str, str, str]] = {
    "PENDING": ("Pending", "calm", "Created; nothing has been tried yet."),
    "PROCESSING": ("Processing", "busy", "A call to the provider is under way or scheduled."),
    "REQUIRES_ACTION": ("Needs the shopper", "busy", "The shopper has to confirm it with their bank or with PayPal."),
    "AUTHORIZED": ("Authorized", "busy", "The money is held, and not taken yet."),
    "SUCCEEDED": ("Succeeded", "good", "The money is taken."),
    "FAILED": ("Failed", "bad", "The provider said no. It may be tried again."),
    "UNKNOWN": (
        "Unknown", "odd",
        "The provider may or may not have done it. It is asked again by itself; until then nothing else is tried.",
    ),
    "CANCELLED": ("Cancelled", "calm", "It will not be charged."),
    "PARTIALLY_REFUNDED": ("Partly refunded", "good", "The money was taken, and a part of it went back."),
    "REFUNDED": ("Refunded", "calm", "All the money went back."),
    "COMPLETED": ("Completed", "good", "The money went back."),
    "RECEIVED": ("Received", "busy", "Kept, and about to be applied."),
    "PROCESSED": ("Processed", "good", "Applied."),
    "PARKED": ("Parked", "odd", "Its payment is not known yet. It is looked at again by itself."),
    "IGNORED": ("Ignored", "calm", "Nothing that concerns us."),
    "OPEN": ("Open", "busy", "Not decided yet."),
    "WON": ("Won", "good", "The money stays."),
    "LOST": ("Lost", "bad", "The money is gone."),
}  # fmt: skip
"""Word -> label, tone, sentence."""

EVENTS: Mapping[str, tuple[str, str, str]] = {
    "payment_created": ("Payment created", "us", "calm"),
    "payment_imported": ("Taken over from the old service", "us", "calm"),
    "order_confirmed": ("Order confirmed it", "asked", "calm"),
    "reopened": ("Opened again", "asked", "calm"),
    "cancelled_before_creation": ("Cancelled before it existed", "asked", "calm"),
    "attempt_started": ("Call to the provider", "us", "busy"),
    "object_created": ("Provider object made", "provider", "calm"),
    "action_required": ("Shopper must act", "provider", "busy"),
    "attempt_pending": ("Provider: later", "provider", "busy"),
    "attempt_approved": ("Provider: yes", "provider", "good"),
    "attempt_declined": ("Provider: no", "provider", "bad"),
    "attempt_not_sent": ("Certainly not sent", "us", "bad"),
    "attempt_unknown": ("No clear answer", "provider", "odd"),
    "external_capture": ("Captured at the provider", "provider", "good"),
    "authorization_expired": ("Hold expired", "provider", "calm"),
    "cancel_requested": ("Cancellation asked for", "asked", "busy"),
    "payment_cancelled": ("Cancelled", "us", "calm"),
    "refund_requested": ("Refund asked for", "asked", "busy"),
    "refund_pending": ("Refund: later", "provider", "busy"),
    "refund_completed": ("Refund: done", "provider", "good"),
    "refund_failed": ("Refund: failed", "provider", "bad"),
    "refund_not_sent": ("Refund certainly not sent", "us", "bad"),
    "refund_unknown": ("Refund: no clear answer", "provider", "odd"),
    "external_refund": ("Refunded at the provider", "provider", "good"),
    "dispute_changed": ("Dispute", "provider", "bad"),
    "contradicted": ("Provider contradicts itself", "provider", "odd"),
    "decided_by_hand": ("Decided by hand", "asked", "odd"),
    "review_flagged": ("Marked for review", "us", "odd"),
    "review_cleared": ("Review is done", "asked", "calm"),
}
"""Event -> label, lane (`asked`: people and orders, `us`, `provider`), tone."""

REVIEWS: Mapping[str, str] = {
    "NO_ANSWER": "Nobody could find out what became of a call to the provider",
    "AMOUNT_DIFFERS": "The provider moved another amount than we asked for",
    "CURRENCY_DIFFERS": "The provider moved another currency",
    "CONTRADICTED": "The provider said first one thing and then its opposite",
    "CAPTURED_EXCEEDS": "More was taken than the payment is about",
    "AUTHORIZED_EXCEEDS": "More is held than the payment is about",
    "REFUND_EXCEEDS": "More went back than was taken",
    "DISPUTE_EXCEEDS": "More is disputed than was taken",
    "ORDER_MISMATCH": "The order says another amount, currency or owner",
    "SECOND_OBJECT": "There is a second object for this payment at the provider",
    "CANCEL_VOID_FAILED": "It is to be cancelled, and the provider would not release the money",
    "CANCEL_REFUND_FAILED": "It is to be cancelled, and the provider would not give the money back",
    "ACTION_VOID_FAILED": "The shopper's time is up, and the provider would not cancel",
    "GIVE_UP_FAILED": "A call without an answer could not be cancelled at the provider",
    "VOIDED_AND_CAPTURED": "The provider says both that it was released and that it was taken",
    "AUTHORIZATION_ENDED": "The hold ended at the provider",
    "PROVIDER_NOT_CONFIGURED": "Its provider is not configured here",
    "NO_OBJECT": "The provider was asked about something that it does not know",
    "ACCOUNT_DIFFERS": "The provider answered for another account or mode (test, live) than ours",
}
SOURCES: Mapping[str, str] = {
    "live": "in its answer", "lookup": "when asked again", "webhook": "by a webhook", "operator": "by hand",
}  # fmt: skip
LANES = ("asked", "us", "provider")
LANE_LABELS = {"asked": "People and orders", "us": "This service", "provider": "Provider"}
ACTORS = {"system": "this service", "order": "the order", "provider": "the provider", "service": "another service"}


def source_words(source: str) -> str:
    return SOURCES.get(source, source)


def label(word: str) -> str:
    """An unknown word is shown as it is, in small letters."""
    known = STATUSES.get(word)
    return known[0] if known is not None else word.replace("_", " ").capitalize()


def tone(word: str) -> str:
    known = STATUSES.get(word)
    return known[1] if known is not None else "calm"


def sentence(word: str) -> str:
    known = STATUSES.get(word)
    return known[2] if known is not None else ""


def event_words(event_type: str) -> tuple[str, str, str]:
    return EVENTS.get(event_type) or (event_type.replace("_", " ").capitalize(), "us", "calm")


def review_words(reason: str) -> str:
    """`NO_ANSWER:attempt:1` -> a sentence, and what it is about."""
    word, _, about = reason.partition(":")
    known = REVIEWS.get(word, word.replace("_", " ").capitalize())
    return f"{known} ({about.replace(':', ' ')})." if about else f"{known}."


def person(by: str) -> str:
    """`operator:ann` -> `ann (operator)`."""
    kind, _, name = by.partition(":")
    return f"{name} ({kind})" if name else ACTORS.get(by, by)
