"""What must never be in a log line, whoever put it there (PCI DSS 3.3.1; ASVS 5.0 16.2.5, 16.4.1, 16.5.1)."""

import io
import logging

import pytest
from rigs.log_lines import logged

from payment_service.adapters.redaction import redact

SECRETS = [
    "Bearer abcdefgh12345678",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1In0.c2lnbmF0dXJl",
    "sk_test_4eC39HqLyjWDarjtT1zdp7dc",
    "whsec_0123456789abcdef",
    "pi_3ABCdef_secret_0123456789",
    "tok_visa_something",
    "postgresql://user:hunter2word@db/x",
    "password=hunter2word",
    "4242 4242 4242 4242",
    "card 378282246310005.",
]
KEPT_OUT = [
    "abcdefgh12345678", "c2lnbmF0dXJl", "4eC39HqLyjWDarjtT1zdp7dc", "0123456789abcdef", "secret_0123456789",
    "visa_something", "hunter2word", "4242 4242", "378282246310005",
]  # fmt: skip


@pytest.fixture
def lines() -> io.StringIO:
    return logged()


@pytest.mark.parametrize("secret", SECRETS)
def test_no_secret_leaves_in_any_value(secret: str) -> None:
    line = {"event": f"it said {secret}", "deep": {"list": [secret, {"x": secret}]}, "thing": ValueError(secret)}
    text = repr(redact(None, "info", line))
    assert not [word for word in KEPT_OUT if word in text], text


def test_fields_with_a_secret_name_are_hidden_whatever_is_in_them() -> None:
    line = redact(None, "info", {"event": "x", "Authorization": "short", "headers": {"cookie": "a=b"}, "token": "t"})
    assert line == {"event": "x", "Authorization": "[hidden]", "headers": {"cookie": "[hidden]"}, "token": "[hidden]"}


def test_what_is_no_secret_stays() -> None:
    line = {"event": "paid", "payment_id": "pay_0123456789abcdef", "amount": 9999, "ok": True, "at": 1.5, "none": None}
    assert redact(None, "info", dict(line)) == line


def test_a_line_break_forges_no_line() -> None:
    assert redact(None, "info", {"event": 'a\r\n{"event": "forged"}'})["event"] == 'a {"event": "forged"}'


def test_exceptions_of_libraries_pass_through_the_net(lines: io.StringIO) -> None:
    try:
        raise RuntimeError("refused: Authorization: Bearer abcdefgh12345678 for 4242424242424242")
    except RuntimeError:
        logging.getLogger("some.library").exception("call failed with sk_live_0123456789abcdef")
    text = lines.getvalue()
    assert "call failed" in text and "RuntimeError" in text, text
    assert not [word for word in ("abcdefgh12345678", "4242424242424242", "0123456789abcdef") if word in text], text


def test_a_line_that_cannot_be_written_is_not_dumped_beside_the_net(
    lines: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    lines.close()
    logging.getLogger("some.library").error("call failed with sk_live_0123456789abcdef")
    assert "0123456789abcdef" not in capsys.readouterr().err
