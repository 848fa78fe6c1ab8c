"""The machine and the process: port, disk, limits, what Python has of Faust.

Room: adapters/checks.
"""

import asyncio
import errno
import os
import resource
import shutil
import socket
from pathlib import Path
from typing import Any

import aiohttp

from payment_service.adapters.settings import Settings
from payment_service.core.doctor import Area, Doctor, Finding

ASK_S = 2.0
DISK_WRONG_BYTES = 100 * 1024**2
DISK_WARNING_BYTES = 1024**3
FILES_MIN = 4096
"""Each caller, provider call and broker connection is a file."""


async def of_machine(settings: Settings) -> list[Finding]:
    doctor = Doctor(Area.MACHINE)
    return [await _port(doctor, settings.port), *_folder(doctor, settings.data_dir), _files(doctor), _faust(doctor)]


async def _port(doctor: Doctor, port: int) -> Finding:
    try:
        with socket.socket() as door:
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            door.bind(("", port))
            return doctor.ok("port", f"{port} is free")
    except OSError as error:
        if error.errno == errno.EACCES:
            mend = "a PORT above 1023, or the right to bind low ports (CAP_NET_BIND_SERVICE)"
            return doctor.wrong("port", f"we may not listen on {port}", mend)
        if error.errno != errno.EADDRINUSE:
            return doctor.wrong("port", f"{port}: {error.strerror}", "another PORT")
    if await _is_ours(port):
        return doctor.ok("port", f"a worker of this service answers on {port}")
    return doctor.wrong(
        "port", f"{port} is taken by something else", f"another PORT, or end it: ss -ltnp 'sport = :{port}'"
    )


async def _is_ours(port: int) -> bool:
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ASK_S)) as session,
            session.get(f"http://127.0.0.1:{port}/health") as answer,
        ):
            body: Any = await answer.json()
    except (aiohttp.ClientError, TimeoutError, ValueError, asyncio.IncompleteReadError):
        return False
    data = body.get("data") if isinstance(body, dict) else None
    return isinstance(data, dict) and data.get("service") == "payment-service"


def _folder(doctor: Doctor, data_dir: Path) -> list[Finding]:
    there = next((it for it in (data_dir, *data_dir.absolute().parents) if it.exists()), Path("/"))
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return [doctor.wrong("DATA_DIR", f"nothing can be written to {data_dir}", "a folder of the user that runs it")]
    free = shutil.disk_usage(there).free
    what = f"{free / 1024**3:.1f} GB are free in {there}"
    if free < DISK_WRONG_BYTES:
        return [doctor.wrong("disk", what, "free some: tables and the embedded servers stop when it is full")]
    if free < DISK_WARNING_BYTES:
        return [doctor.warning("disk", what, "free some before it is full")]
    return [doctor.ok("disk", what)]


def _files(doctor: Doctor) -> Finding:
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < FILES_MIN:
        what = f"a process may have {most} open: connections of callers and providers count"
        return doctor.warning("open files", what, f"ulimit -n {FILES_MIN * 16}, or LimitNOFILE= in its unit")
    return doctor.ok("open files", "no limit" if most == resource.RLIM_INFINITY else f"at most {most}")


def _faust(doctor: Doctor) -> Finding:
    from faust import streams

    if streams._CStreamIterator is None:
        what = "has not its compiled parts: the stream side will not start, since events would be lost"
        return doctor.wrong("faust", what, "a glibc image with its wheel, and no NO_CYTHON in the environment")
    return doctor.ok("faust", "has its compiled parts")
