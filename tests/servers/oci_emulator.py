"""OCI Queue and Vault's secrets over HTTP, as their SDK speaks to them: every request's signature is checked.

In a thread of this process, on a loopback port. What a queue does with time (visibility) can be hurried by `expire`.
"""

import base64
import datetime
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

TENANCY, USER = "ocid1.tenancy.oc1..emulated", "ocid1.user.oc1..emulated"
QUEUE, SECRET = "ocid1.queue.oc1.ap-hyderabad-1.emulated", "ocid1.vaultsecret.oc1.ap-hyderabad-1.emulated"
CLOCK_SKEW_S = 300
SIGNED = ("date", "(request-target)", "host")
SIGNED_WITH_BODY = (*SIGNED, "content-length", "content-type", "x-content-sha256")
LIMIT_MAX = 20

Reply = tuple[int, Any]


@dataclass
class Held:
    """A message of the queue."""

    id: int
    content: str
    properties: dict[str, str]
    deliveries: int = 0
    visible_at: float = 0.0
    receipt: str = ""


@dataclass
class OciEmulator:
    """`deliveries_max`: more deliveries than this and the queue puts the message into `dead`."""

    folder: Path
    deliveries_max: int = 5
    secrets: dict[str, bytes] = field(default_factory=dict)
    """Stage (CURRENT, PREVIOUS) -> content of the one secret."""
    messages: dict[int, Held] = field(default_factory=dict)
    dead: list[Held] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    """Why requests were answered 401."""
    failures: list[int] = field(default_factory=list)
    """Statuses of the next answers, instead of what was asked."""
    deletes_allowed: threading.Event = field(default_factory=threading.Event)
    """Cleared: who asks to delete waits, and nothing is deleted."""
    deletes_waiting: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._changed = threading.Condition()
        self._count = 0
        self.deletes_allowed.set()
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.fingerprint = self._fingerprint()
        self.config = self.write_config("config", self._key)
        emulator = self

        class Handler(_Handler):
            answer = staticmethod(emulator.answer)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.deletes_allowed.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def env(self) -> dict[str, str]:
        """Of a worker."""
        return {
            "EVENT_CONSUMER_TYPE": "oci-queue",
            "OCI_QUEUE_ID": QUEUE,
            "OCI_QUEUE_ENDPOINT": self.url,
            "OCI_CONFIG_FILE": str(self.config),
        }

    # --- what tests do ---------------------------------------------------------------------------------------

    def write_config(self, name: str, key: rsa.RSAPrivateKey) -> Path:
        """A config file for the user, with this key under the fingerprint that is known here."""
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        key_file = self.folder / f"{name}.pem"
        key_file.write_bytes(pem)
        key_file.chmod(0o600)
        path = self.folder / name
        path.write_text(
            f"[DEFAULT]\nuser={USER}\ntenancy={TENANCY}\nfingerprint={self.fingerprint}\n"
            f"key_file={key_file}\nregion=ap-hyderabad-1\n"
        )
        path.chmod(0o600)
        return path

    def put(self, content: str, **properties: str) -> int:
        with self._changed:
            self._count += 1
            self.messages[self._count] = Held(self._count, content, properties)
            self._changed.notify_all()
            return self._count

    def expire(self) -> None:
        """The visibility of all that is handed out ends now."""
        with self._changed:
            for one in self.messages.values():
                one.visible_at = 0.0
            self._changed.notify_all()

    def in_flight(self) -> int:
        with self._changed:
            return sum(one.visible_at > time.monotonic() for one in self.messages.values())

    # --- HTTP ------------------------------------------------------------------------------------------------

    def answer(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Reply:
        self.calls.append(f"{method} {urlsplit(target).path}")
        wrong = self._wrong_signature(method, target, headers, body)
        if wrong is not None:
            self.refused.append(wrong)
            return 401, {"code": "NotAuthenticated", "message": wrong}
        if self.failures:
            return self.failures.pop(0), {"code": "InternalError", "message": "as the test wishes"}
        path, query = urlsplit(target).path, {k: v[0] for k, v in parse_qs(urlsplit(target).query).items()}
        routes: dict[tuple[str, str], Callable[[], Reply]] = {
            ("GET", f"/20210201/queues/{QUEUE}/messages"): lambda: self._get(query),
            ("POST", f"/20210201/queues/{QUEUE}/messages/actions/deleteMessages"): lambda: self._delete(body),
            ("POST", f"/20210201/queues/{QUEUE}/messages/actions/updateMessages"): lambda: self._update(body),
            ("GET", f"/20210201/queues/{QUEUE}/stats"): self._stats,
            ("GET", f"/20210201/queues/{QUEUE}"): self._queue,
            ("GET", f"/20190301/secretbundles/{SECRET}"): lambda: self._secret(query),
        }
        route = routes.get((method, path))
        return route() if route is not None else _not_found()

    def _get(self, query: dict[str, str]) -> Reply:
        limit = min(LIMIT_MAX, int(query.get("limit", 1)))
        visibility, wait_s = int(query["visibilityInSeconds"]), int(query.get("timeoutInSeconds", 30))
        deadline = time.monotonic() + wait_s
        with self._changed:
            while not (found := self._visible(limit)) and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(min(left, 0.1))
            for one in found:
                one.deliveries += 1
                one.visible_at = time.monotonic() + visibility
                one.receipt = f"{one.id}/{one.deliveries}=="
            return 200, {"messages": [self._shown(one) for one in found]}

    def _visible(self, limit: int) -> list[Held]:
        now = time.monotonic()
        ready = [one for one in self.messages.values() if one.visible_at <= now]
        for one in ready:
            if one.deliveries >= self.deliveries_max:
                self.dead.append(self.messages.pop(one.id))
        return [one for one in ready if one.id in self.messages][:limit]

    def _shown(self, one: Held) -> dict[str, Any]:
        later = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)).isoformat().replace("+00:00", "Z")
        return {
            "id": one.id, "content": one.content, "receipt": one.receipt, "deliveryCount": one.deliveries,
            "visibleAfter": later, "expireAfter": later, "createdAt": later,
            "metadata": {"channelId": "orders", "customProperties": one.properties},
        }  # fmt: skip

    def _delete(self, body: bytes) -> Reply:
        if not self.deletes_allowed.is_set():
            self.deletes_waiting.set()
            self.deletes_allowed.wait()
            return 503, {"code": "ServiceUnavailable", "message": "as the test wishes"}
        return self._each(body, lambda one, entry: self.messages.pop(one.id) and None)

    def _update(self, body: bytes) -> Reply:
        def hold(one: Held, entry: dict[str, Any]) -> None:
            one.visible_at = time.monotonic() + entry["visibilityInSeconds"]
            self._changed.notify_all()

        return self._each(body, hold)

    def _each(self, body: bytes, act: Callable[[Held, dict[str, Any]], None]) -> Reply:
        """Only with the receipt of the last delivery."""
        results: list[dict[str, Any]] = []
        with self._changed:
            by_receipt = {one.receipt: one for one in self.messages.values()}
            for entry in json.loads(body)["entries"]:
                one = by_receipt.get(entry["receipt"])
                if one is None:
                    results.append({"errorCode": 404, "errorMessage": "no such message"})
                else:
                    act(one, entry)
                    results.append({})
        failed = sum("errorCode" in it for it in results)
        return 200, {"serverFailures": 0, "clientFailures": failed, "entries": results}

    def _stats(self) -> Reply:
        with self._changed:
            flying = sum(one.visible_at > time.monotonic() for one in self.messages.values())
            main = {"visibleMessages": len(self.messages) - flying, "inFlightMessages": flying, "sizeInBytes": 0}
            dead = {"visibleMessages": len(self.dead), "inFlightMessages": 0, "sizeInBytes": 0}
        return 200, {"queue": main, "dlq": dead}

    def _queue(self) -> Reply:
        return 200, {
            "id": QUEUE, "messagesEndpoint": self.url, "deadLetterQueueDeliveryCount": self.deliveries_max,
            "lifecycleState": "ACTIVE", "displayName": "orders", "compartmentId": TENANCY,
        }  # fmt: skip

    def _secret(self, query: dict[str, str]) -> Reply:
        content = self.secrets.get(query.get("stage", "CURRENT"))
        if content is None:
            return _not_found()
        bundle = {"contentType": "BASE64", "content": base64.b64encode(content).decode()}
        return 200, {"secretId": SECRET, "versionNumber": 1, "secretBundleContent": bundle}

    # --- signatures ------------------------------------------------------------------------------------------

    def _fingerprint(self) -> str:
        der = self._key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return ":".join(f"{byte:02x}" for byte in hashlib.md5(der, usedforsecurity=False).digest())

    def _wrong_signature(self, method: str, target: str, headers: dict[str, str], body: bytes) -> str | None:
        """Why not, by draft-cavage-http-signatures as OCI wants it."""
        said = dict(re.findall(r'(\w+)="([^"]*)"', headers.get("authorization", "")))
        if said.get("keyId") != f"{TENANCY}/{USER}/{self.fingerprint}":
            return "the key is not known"
        signed = tuple(said.get("headers", "").split())
        with_body = method in ("POST", "PUT", "PATCH")
        if set(signed) != set(SIGNED_WITH_BODY if with_body else SIGNED):
            return f"signs {signed}"
        if with_body and base64.b64encode(hashlib.sha256(body).digest()).decode() != headers.get("x-content-sha256"):
            return "x-content-sha256 is another body's"
        if with_body and int(headers["content-length"]) != len(body):
            return "content-length is another body's"
        age_s = (datetime.datetime.now(datetime.UTC) - parsedate_to_datetime(headers["date"])).total_seconds()
        if abs(age_s) > CLOCK_SKEW_S:
            return "the date is too far off"
        values = {**headers, "(request-target)": f"{method.lower()} {target}"}
        text = "\n".join(f"{name}: {values[name]}" for name in signed)
        try:
            self._key.public_key().verify(
                base64.b64decode(said["signature"]), text.encode(), padding.PKCS1v15(), hashes.SHA256()
            )
        except InvalidSignature:
            return "the signature is wrong"
        return None


def _not_found() -> Reply:
    return 404, {"code": "NotAuthorizedOrNotFound", "message": "Authorization failed or requested resource not found"}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    answer: Callable[[str, str, dict[str, str], bytes], Reply]

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def _serve(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", 0)))
        status, told = self.answer(self.command, self.path, headers, body)
        data = json.dumps(told).encode()
        with suppress(ConnectionError):  # who asked may have been killed
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.send_header("opc-request-id", "emulated")
            self.end_headers()
            self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass
