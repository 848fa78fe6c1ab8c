"""Every place where a worker can die, one after another: `python tests/crash/exhaustive.py [--limit-s 600]`.

For each story and each port: a forked worker plays the story and dies at the port's 1st call, before it and after it;
a second worker recovers, the auditor looks, the client goes on, the auditor looks again; then the 2nd call, and so on
until a run ends unkilled. Real use cases, wiring and PostgreSQL; the provider and the broker are a journal on disk.
Then, at each of these places, the worker stands still until the second one has done everything, and goes on, knowing
nothing of it. With time left, the second worker dies as well, at every place of its own. `--once` leaves both out.

Exit code 1 when anything was wrong; the journals of those runs are kept, and their folder is printed. A planted bug
(`--plant NAME`) must give 1.
"""

import argparse
import contextlib
import gc
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from crash.exhaustive_audit import connect
from crash.exhaustive_journal import Journal, Kill
from crash.exhaustive_life import BROKEN, Run, live
from crash.exhaustive_ports import IDLE, PLANTS
from crash.exhaustive_stories import STORIES, Story
from servers import postgres_for_tests
from servers.postgres import database_on, migrate

SLOTS = 3
"""Runs at once, each on a database of its own: a run waits for the disk about a third of its time."""
CALLS_MAX = 40
"""Of one port in one life. More means that something runs in circles, which is a fault by itself."""
KEPT_MAX = 20
"""Journals of runs that went wrong."""


@dataclass(slots=True)
class Found:
    """What a slot, or all of them, did and saw."""

    runs: int = 0
    kills: int = 0
    twice: int = 0
    still: int = 0
    out_of_time: int = 0
    """Stories that were not killed at every place."""
    places: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def add(self, other: dict[str, Any]) -> None:
        for name in ("runs", "kills", "twice", "still", "out_of_time", "wrong"):
            setattr(self, name, getattr(self, name) + other[name])
        self.places.update(other["places"])


class Slot:
    """Plays stories on one database. In a process of its own, with everything imported and nothing opened."""

    def __init__(self, number: int, folder: Path, url: str, options: argparse.Namespace) -> None:
        self.found = Found()
        self._number = number
        self._folder = folder
        self._url = url
        self._options = options
        os.environ["DATABASE_URL"] = url

    @property
    def goes_on(self) -> bool:
        """There is time, and a bug that was planted has not been found yet."""
        return time.monotonic() < self._options.until and not (self._options.plant and self.found.wrong)

    def once(self, story: Story) -> list[Kill]:
        """Die at every place, once. Returns the places, for `twice`."""
        calls = self._play(story)
        kills: list[Kill] = []
        for call in sorted(calls):
            for after in (False, True):
                if (call in IDLE and not after) or call not in (self._options.calls or calls):
                    continue
                for kill in (Kill(call, number, after) for number in range(1, self._options.first + 1)):
                    if not self.goes_on:
                        self.found.out_of_time += 1
                        return kills
                    before = self.found.kills
                    self._play(story, kill)
                    if self.found.kills == before:
                        break
                    kills.append(kill)
                else:
                    if self._options.first == CALLS_MAX:
                        self.found.wrong.append(f"{story.name}: {call} is called more than {CALLS_MAX} times")
        return kills

    def still(self, story: Story, kill: Kill) -> None:
        """Stop there instead of dying, while another one takes over and does everything; then go on."""
        kill = replace(kill, stands_still=True)
        run, path = self._begin(story, kill)
        child = self._start(run, kill)
        _, status = os.waitpid(child, os.WUNTRACED)
        if os.WIFSTOPPED(status):
            self.found.still += 1
            run.journal.write("stood")
            self._cut_off()
            other = self._life(run, None)
            os.kill(child, signal.SIGCONT)
            _, status = os.waitpid(child, 0)
            status = other or status
        self._end(run, path, (kill,), status)

    def _cut_off(self) -> None:
        """The server ends the session of a worker that is silent too long, and frees its locks."""
        with contextlib.closing(connect(self._url)) as database, database.cursor() as cursor:
            cursor.execute(
                "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
                " where datname = current_database() and application_name = 'payment-service outbox'"
            )

    def twice(self, story: Story, first: Kill) -> None:
        """The one who recovers dies too, at every place of its own."""
        calls = self._play(story, first)
        for call in sorted(calls):
            for after in (False, True):
                for number in range(1, self._options.first + 1):
                    if (call in IDLE and not after) or not self.goes_on:
                        break
                    before = self.found.kills
                    self._play(story, first, Kill(call, number, after))
                    self.found.twice += 1
                    if self.found.kills < before + 2:
                        break

    def _play(self, story: Story, *kills: Kill) -> dict[str, int]:
        """One run. The calls of its last life, by name."""
        run, path = self._begin(story, *kills)
        for kill in (*kills, None):
            status = self._life(run, kill)
            if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
                break
            self.found.kills += 1
            self.found.places[kill.call if kill is not None else "nowhere"] += 1
        return self._end(run, path, kills, status)

    def _begin(self, story: Story, *kills: Kill) -> tuple[Run, Path]:
        self.found.runs += 1
        name = f"{story.name}-{self._number}-{self.found.runs}"
        path = self._folder / f"{name}.jsonl"
        run = Run(story, name, Journal(path), self._url, self._options.plant)
        run.journal.write("run", story=story.name, kills=[str(kill) for kill in kills])
        return run, path

    def _life(self, run: Run, kill: Kill | None) -> int:
        return os.waitpid(self._start(run, kill), 0)[1]

    def _start(self, run: Run, kill: Kill | None) -> int:
        child = os.fork()
        if child == 0:
            live(run, kill, self._folder / f"{run.order_id}.log")
        return child

    def _end(self, run: Run, path: Path, kills: tuple[Kill, ...], status: int) -> dict[str, int]:
        if status != 0:
            how = "it broke" if os.WIFEXITED(status) and os.WEXITSTATUS(status) == BROKEN else "it hung"
            run.journal.write("violation", what=f"{how}: status {status}")
        run.journal.close()
        return self._judge(run, path, kills)

    def _judge(self, run: Run, path: Path, kills: tuple[Kill, ...]) -> dict[str, int]:
        lines = run.journal.lines("violation", "done")
        wrong = [line["what"] for line in lines if line["line"] == "violation"]
        self.found.wrong += [f"{run.order_id} {', '.join(map(str, kills)) or 'unkilled'}: {what}" for what in wrong]
        if wrong:
            self._set_aside(run)
        if not wrong or len(self.found.wrong) > KEPT_MAX:
            path.unlink()
            path.with_suffix(".log").unlink()
        return next((line["counts"] for line in lines if line["line"] == "done"), {})

    def _set_aside(self, run: Run) -> None:
        """What it left open must not be anybody's work in the runs that follow."""
        with contextlib.closing(connect(self._url)) as database, database.cursor() as cursor:
            cursor.execute(
                "update payment_service.transactions set due_at = null where payment_id = %s", (run.payment_id,)
            )
            cursor.execute("delete from payment_service.outbox where payment_id = %s", (run.payment_id,))


def slot_in_a_process(
    number: int, folder: Path, url: str, stories: list[Story], line: int, options: argparse.Namespace
) -> tuple[int, Path]:
    """Its process id, and the file in which it says what it found. `line`: a pipe with the numbers of the stories
    that nobody has taken yet, a byte each."""
    told = folder / f"slot-{number}.json"
    child = os.fork()
    if child:
        return child, told
    code = 1
    try:
        slot = Slot(number, folder, url, options)
        firsts: list[tuple[Story, Kill]] = []
        while taken := os.read(line, 1):
            story = stories[taken[0]]
            firsts += [(story, kill) for kill in slot.once(story)]
        random.Random(options.seed).shuffle(firsts)
        for story, kill in firsts if not options.once else ():
            if slot.goes_on:
                slot.still(story, kill)
        while not options.once and firsts and slot.goes_on:
            slot.twice(*firsts.pop())
        told.write_text(json.dumps({it.name: getattr(slot.found, it.name) for it in fields(slot.found)}))
        code = 0
    except BaseException:  # this process is a copy: what the parent has open is not its to close
        traceback.print_exc()
    os._exit(code)


@contextlib.contextmanager
def databases(given: str | None) -> Iterator[list[str]]:
    with contextlib.ExitStack() as opened:
        server = given or opened.enter_context(postgres_for_tests())
        urls = [opened.enter_context(database_on(server)) for _ in range(SLOTS)]
        for url in urls:
            migrate(url)
        yield urls


def environment(folder: Path) -> None:
    """Settings of the workers: no .env of anybody's is read where they run."""
    os.environ.update(
        ENVIRONMENT="test", KAFKA_BROKERS="127.0.0.1:9", DATA_DIR=str(folder), PAYMENT_PROVIDER="mock",
        JWT_SECRET="s" * 40, ENCRYPTION_KEY="0123456789abcdef0123456789abcdef", LEASE_S="6", PROVIDER_DEADLINE_S="4",
        PROCESS_WAIT_S="1", LOG_LEVEL="WARNING", REFUND_ROLES="owner,admin,service",
    )  # fmt: skip


def everywhere(options: argparse.Namespace) -> tuple[Found, Path]:
    folder = Path(tempfile.mkdtemp(prefix="payment-crash-"))
    environment(folder)
    chosen = [story for story in STORIES if not options.stories or story.name in options.stories]
    options.until = time.monotonic() + options.limit_s
    line, filling = os.pipe()
    os.write(filling, bytes(range(len(chosen))))
    os.close(filling)
    gc.freeze()  # a collection in a forked process would copy every page it touches
    found = Found()
    with databases(options.database_url or os.environ.get("TEST_DATABASE_URL")) as urls:
        slots = [slot_in_a_process(number, folder, url, chosen, line, options) for number, url in enumerate(urls)]
        for child, told in slots:
            _, status = os.waitpid(child, 0)
            if status != 0:
                found.wrong.append(f"a slot of the rig ended with status {status}")
            else:
                found.add(json.loads(told.read_text()))
                told.unlink()
    return found, folder


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def options_of(arguments: list[str]) -> argparse.Namespace:
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--limit-s", type=float, default=600.0, help="no run begins later")
    reader.add_argument("--once", action="store_true", help="one death a run")
    reader.add_argument("--seed", type=int, default=0, help="the order in which places are tried twice")
    reader.add_argument("--plant", default="", choices=["", *PLANTS], help="a bug that must be found")
    reader.add_argument("--stories", nargs="*", default=[], choices=[story.name for story in STORIES])
    reader.add_argument("--database-url", help="a server to make databases on; else one is started")
    reader.add_argument("--calls", nargs="*", default=[], help="only these, such as provider.send")
    reader.add_argument("--first", type=int, default=CALLS_MAX, help="only so many calls of each port")
    return reader.parse_args(arguments)


def main() -> int:
    options = options_of(sys.argv[1:])
    began = time.monotonic()
    found, folder = everywhere(options)
    for wrong in found.wrong:
        say(wrong)
    say(
        f"{found.runs} runs, {found.kills} kills at {len(found.places)} ports, {found.still} that stood still instead,"
        f" {found.twice} that died twice,"
        f" {len(found.wrong)} violations, {time.monotonic() - began:.0f} s"
        f"{f', out of time in {found.out_of_time} stories' if found.out_of_time else ''}"
    )
    say(" ".join(f"{call}={count}" for call, count in sorted(found.places.items())))
    if found.wrong:
        say(f"journals: {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
