"""How calls to OCI's own services are signed, and what their errors mean: for Queue and Vault.

Room: adapters. The SDK (the extra `oci`) is imported when a client is made, since it takes a second and few need it. It
knows nothing but blocking calls: whoever uses a client does so in a thread, each thread with a client of its own.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from payment_service.core.errors import Unavailable

CONNECT_S = 3.0
READ_S = 10.0
TRY_LATER = frozenset({408, 409, 429})
NEEDS = "the extra `oci` is not installed: pip install 'payment-service[oci]'"

Made = TypeVar("Made")


class OciRefused(Exception):
    """OCI says no, and the same again would be no again. The text holds no secret. `status`: of HTTP, if it was one."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


@dataclass(frozen=True, slots=True)
class OciSignOn:
    """`method`: config-file (an API key), or the principal of the instance, of a resource (functions) or of a
    Kubernetes workload. `region`: as in OCI's host names."""

    method: str
    config_file: Path
    profile: str
    region: str

    def client(self, kind: Callable[..., Made], endpoint: str | None = None, read_s: float = READ_S) -> Made:
        """A client of the SDK that neither retries nor has a breaker: both are for whoever calls. Blocks.

        Raises: OciRefused (no such file, section or key), Unavailable (whoever issues the principal is away).
        """
        import oci

        options: dict[str, Any] = {
            "timeout": (CONNECT_S, read_s),
            "retry_strategy": oci.retry.NoneRetryStrategy(),
            "circuit_breaker_strategy": oci.circuit_breaker.NoCircuitBreakerStrategy(),
            "allow_control_chars": True,
        }
        if endpoint is not None:
            options["service_endpoint"] = endpoint
        return asked(lambda: self._made(oci, kind, options), "sign on")

    def _made(self, oci: Any, kind: Callable[..., Made], options: dict[str, Any]) -> Made:
        if self.method == "config-file":
            config = oci.config.from_file(str(self.config_file.expanduser()), self.profile)
            config["region"] = self.region
            return kind(config, **options)
        signers = oci.auth.signers
        match self.method:
            case "instance-principal":
                signer = signers.InstancePrincipalsSecurityTokenSigner()
            case "resource-principal":
                signer = signers.get_resource_principals_signer()
            case _:
                signer = signers.get_oke_workload_identity_resource_principal_signer()
        return kind({"region": self.region}, signer=signer, **options)


def is_installed() -> bool:
    return importlib.util.find_spec("oci") is not None


def asked(call: Callable[[], Made], what: str) -> Made:
    """The answer of a call of the SDK. Blocks. Raises Unavailable (the same again may work), OciRefused."""
    import oci

    try:
        return call()
    except oci.exceptions.ServiceError as error:
        told = f"OCI does not {what}: {error.status} {error.code}"
        if error.status >= 500 or error.status in TRY_LATER:
            raise Unavailable(told) from None
        raise OciRefused(told, error.status) from None
    except (oci.exceptions.RequestException, ConnectionError, TimeoutError) as error:
        raise Unavailable(f"OCI does not answer to {what}: {type(error).__name__}") from None
    except oci.exceptions.ClientError as error:
        raise OciRefused(f"OCI_CONFIG_FILE, OCI_CONFIG_PROFILE: {type(error).__name__}: {_told(error)}") from None
    except (OSError, ValueError) as error:  # the signers' own: no metadata service, no environment of a principal
        raise OciRefused(f"OCI_SIGN_ON: {type(error).__name__} while trying to {what}") from None


def _told(error: Exception) -> str:
    """InvalidConfig names the fields that are wrong; the others say a path or a section."""
    fields = getattr(error, "errors", None)
    return ", ".join(sorted(map(str, fields))) if fields else str(error)[:200]
