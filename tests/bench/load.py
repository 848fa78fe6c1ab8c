"""The load: wrk, a compiled client, driven by the Lua scripts beside this file."""

import os
import re
import resource
import shutil
import subprocess
import time
import uuid
from dataclasses import dataclass
from typing import NamedTuple

import jwt
from bench.harness import HERE, SECONDS, SECRET, Bench, console

ANSWER_S = 30
"""An answer that took longer is a failure."""
GRACE_S = 30.0
"""Past its own time wrk gets no more than this."""


class Timing(NamedTuple):
    """Of the requests of one kind that were answered with a yes."""

    count: int
    per_s: float
    p50_ms: float
    p99_ms: float
    max_ms: float


@dataclass(frozen=True)
class Load:
    timings: dict[str, Timing]
    failures: int
    """Answers that were no yes, and requests without an answer."""
    client_us: float = 0.0
    """Processor time of the client for each request."""
    unanswered: int = 0
    """Under way when the time was up: in no other figure."""

    def keep(self, bench: Bench, kind: str, name: str, *, rate: bool = True) -> None:
        timing = self.timings.get(kind)
        if timing is None:
            return
        if rate:
            bench.results[f"{name} /s"] = timing.per_s
        bench.results[f"{name} p50 ms"] = timing.p50_ms
        bench.results[f"{name} p99 ms"] = timing.p99_ms
        if self.failures:
            bench.results[f"{name} failures"] = self.failures


def read_load(text: str, client_s: float = 0.0) -> Load:
    """What the scripts print. Empty when wrk ended without a word of theirs."""
    timings, failures = {}, 0
    for kind, *numbers in re.findall(r"^TIMED (\w+) (\d+) (\d+) (\d+) (\d+) (\d+)$", text, re.MULTILINE):
        count, span_us, p50_us, p99_us, max_us = map(int, numbers)
        per_s = count / span_us * 1e6 if span_us else 0.0
        timings[kind] = Timing(count, per_s, p50_us / 1e3, p99_us / 1e3, max_us / 1e3)
    for count in re.findall(r"^(?:REFUSED \w+|ERRORS) (\d+)$", text, re.MULTILINE):
        failures += int(count)
    requests = sum(timing.count for kind, timing in timings.items() if kind != "both")
    unanswered = sum(map(int, re.findall(r"^UNANSWERED (\d+)$", text, re.MULTILINE)))
    return Load(timings, failures, client_s / requests * 1e6 if requests else 0.0, unanswered)


def wrk(script: str, port: int, connections: int, seconds: int = SECONDS, **env: str) -> Load:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", f"--timeout={ANSWER_S}s", "-s", str(HERE / script),
         f"http://127.0.0.1:{port}"],
        env={**os.environ, "TOKEN": token(), "RUN": f"b-{uuid.uuid4().hex[:8]}", "LUA": str(HERE), **env},
        capture_output=True, text=True, timeout=seconds + GRACE_S,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    load = read_load(done.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    if not load.timings:
        console.print(done.stdout, done.stderr, markup=False)
    return load


def token() -> str:
    return jwt.encode({"sub": "bench", "exp": int(time.time()) + 3600}, SECRET, algorithm="HS256")


def need_wrk() -> None:
    if shutil.which("wrk"):
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(["apt-get", "install", "-y", "-q", "wrk"], check=False, capture_output=True)
    if not shutil.which("wrk"):
        raise SystemExit("make bench needs wrk as load generator: install the package wrk")
