"""An installation, looked at area by area.

Room: adapters/checks. Changes nothing; raises nothing for what it finds.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass

from payment_service.adapters.beside import with_broker, with_database
from payment_service.adapters.checks.broker import of_broker, of_letters
from payment_service.adapters.checks.database import of_database
from payment_service.adapters.checks.given import MENDS, of_settings
from payment_service.adapters.checks.machine import of_machine
from payment_service.adapters.checks.outside import of_providers, of_surroundings
from payment_service.adapters.checks.waiting import of_work
from payment_service.adapters.embedded_process import EmbeddedError
from payment_service.adapters.kafka_client import KafkaClient
from payment_service.adapters.sealing import AesGcmCipher
from payment_service.adapters.settings import Settings
from payment_service.core.dead_letters import LetterPage
from payment_service.core.doctor import Area, Doctor, Finding
from payment_service.core.errors import Unavailable
from payment_service.core.ports import Clock
from payment_service.core.topic_plan import TopicReport


@dataclass(frozen=True, slots=True)
class Examination:
    """`problems`: what stops a start with these settings. The callables are what root puts together of them."""

    settings: Settings
    problems: Sequence[str]
    production: bool
    clock: Clock
    kafka_client: Callable[[Settings], KafkaClient]
    cipher_of: Callable[[Settings], AesGcmCipher]
    topics: Callable[[], Awaitable[Sequence[TopicReport]]]
    letters: Callable[[int], Awaitable[LetterPage]]

    async def run(self, areas: Collection[Area]) -> AsyncGenerator[tuple[Area, Sequence[Finding]], None]:
        settings, work, letters = self.settings, list[Finding](), list[Finding]()
        if Area.SETTINGS in areas:
            yield Area.SETTINGS, of_settings(settings, self.problems, as_production=self.production)
        if Area.MACHINE in areas:
            yield Area.MACHINE, await of_machine(settings)
        if {Area.DATABASE, Area.WORK} & set(areas):
            findings, work = await self._database()
            if Area.DATABASE in areas:
                yield Area.DATABASE, findings
        if {Area.BROKER, Area.WORK} & set(areas):
            findings, letters = await self._broker()
            if Area.BROKER in areas:
                yield Area.BROKER, findings
        if Area.PROVIDERS in areas:
            yield Area.PROVIDERS, await of_providers(settings, self.clock)
        if Area.AROUND in areas:
            yield Area.AROUND, await of_surroundings(settings)
        if Area.WORK in areas:
            yield Area.WORK, [*work, *letters]

    async def _database(self) -> tuple[list[Finding], list[Finding]]:
        """Of the database, and of the work in it."""
        settings, doctor = self.settings, Doctor(Area.DATABASE)
        nothing = [Doctor(Area.WORK).skipped("work", "the database has to be mended first")]
        own = settings.embedded_database
        if own and not settings.may_embed:
            return [doctor.skipped("connection", "DATABASE_URL names none")], nothing
        try:
            async with with_database(settings) as pointed:
                findings, readable = await of_database(pointed, self.clock, production=self.production, own=own)
                if not readable:
                    return findings, nothing
                return findings, await of_work(pointed, None if self.problems else self.cipher_of(pointed))
        except ValueError as error:  # DATABASE_URL is no address; said of the settings too
            return [doctor.wrong("connection", f"DATABASE_URL {error}", MENDS["DATABASE_URL"])], nothing
        except EmbeddedError as error:
            return [doctor.wrong("connection", f"the embedded PostgreSQL: {error}", MENDS["DATABASE_URL"])], nothing

    async def _broker(self) -> tuple[list[Finding], list[Finding]]:
        """Of the broker, and of the letters on it and in PostgreSQL."""
        settings, doctor = self.settings, Doctor(Area.BROKER)
        if settings.embedded_broker and not settings.may_embed:
            return [doctor.skipped("broker", "KAFKA_BROKERS names none")], []
        try:
            client = self.kafka_client(with_broker(settings))
        except Unavailable as error:
            mend = "`payment-service dev` or `worker` starts it, or KAFKA_BROKERS names one"
            return [doctor.warning("broker", error.message, mend)], []
        findings = await of_broker(client, self.topics)
        away = any(it.check == "broker" and it.mend for it in findings)
        return findings, [] if away else await of_letters(self.letters)
