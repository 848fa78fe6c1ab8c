"""Kafka: can we sign on, are the topics there as they must be, are there letters that nobody sent again.

Room: adapters/checks. Reads alone.
"""

import ssl
from collections.abc import Awaitable, Callable, Sequence

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from payment_service.adapters.kafka_client import KafkaClient
from payment_service.core.dead_letters import LetterPage
from payment_service.core.doctor import Area, Doctor, Finding
from payment_service.core.errors import PaymentError
from payment_service.core.topic_plan import TopicReport, Verdict

LETTERS_LOOKED_AT = 1_000
SIGN_ON = "KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD, the mechanism (on OCI: OCI_TENANCY, OCI_USER, OCI_AUTH_TOKEN)"
ACL = "an ACL for our user on our topics and group"
CA = "KAFKA_SSL_CAFILE: the authority that signed the broker's certificate"
ANSWERS = (
    (("Authentication", "SaslAuth", "IllegalSaslState", "UnsupportedSasl"), "does not accept who we are", SIGN_ON),
    (("TopicAuthorization", "ClusterAuthorization", "GroupAuthorization"), "does not let us do it", ACL),
    (("SSL", "Certificate"), "TLS is not agreed on", CA),
)
"""What the error is called -> what it means, and how to mend it."""
SEE = "see `payment-service topics check`"
AWAY = "KAFKA_BROKERS=host:port of a broker that runs, KAFKA_SECURITY_PROTOCOL as it wants it, and the network between"


async def of_broker(client: KafkaClient, topics: Callable[[], Awaitable[Sequence[TopicReport]]]) -> list[Finding]:
    doctor = Doctor(Area.BROKER)
    admin = AIOKafkaAdminClient(**client.options() | {"request_timeout_ms": 8_000})
    try:
        await admin.start()
        brokers = len((await admin.describe_cluster())["brokers"])
    except (KafkaError, OSError, ssl.SSLError) as error:
        return [_away(doctor, client.brokers, error)]
    finally:
        await admin.close()
    found = [doctor.ok("broker", f"{client.brokers} answers; {brokers} in the cluster")]
    try:
        reports = await topics()
    except PaymentError as error:
        return [*found, doctor.wrong("topics", error.message, AWAY)]
    bad = [it for it in reports if it.verdict is not Verdict.OK]
    for report in bad:
        note = "; ".join(report.notes) or "is missing"
        if report.verdict is Verdict.WARNING:
            found.append(doctor.warning(report.name, note, "see `payment-service topics check`"))
        else:
            mend = (
                "payment-service topics create"
                if report.verdict is Verdict.MISSING
                else "see `payment-service topics check`"
            )
            found.append(doctor.wrong(report.name, note, mend))
    if not bad:
        found.append(doctor.ok("topics", f"all {len(reports)} are there as they must be"))
    return found


async def of_letters(find: Callable[[int], Awaitable[LetterPage]]) -> list[Finding]:
    """Part of the work that waits, on the broker and in PostgreSQL."""
    doctor = Doctor(Area.WORK)
    try:
        page = await find(LETTERS_LOOKED_AT)
    except PaymentError as error:
        return [doctor.skipped("dead letters", error.message)]
    left = [letter for letter in page.letters if letter.stamp not in page.sent_at_ms]
    if left:
        reasons = ", ".join(sorted({letter.reason for letter in left})[:5])
        what = f"{len(left)} messages could not be taken and were not sent again: {reasons}"
        mend = "`payment-service dead-letters list` and `show ID`; mend the sender, then `dead-letters replay ID`"
        return [doctor.warning("dead letters", what, mend)]
    if page.away:
        return [doctor.skipped("dead letters", page.away)]
    return [doctor.ok("dead letters", "none that was not sent again")]


def _away(doctor: Doctor, brokers: str, error: Exception) -> Finding:
    names = f"{type(error).__name__} {error}"
    for words, meaning, mend in ANSWERS:
        if any(word in names for word in words):
            return doctor.wrong("broker", f"{brokers} {meaning}: {type(error).__name__}", mend)
    return doctor.wrong("broker", f"{brokers} cannot be reached: {type(error).__name__}", AWAY)
