"""Tokens as the old service had encrypted them: opened with whichever key it had, and with no other."""

import base64

import pytest
from rigs.legacy_tables import encrypted

from payment_service.adapters.legacy_tokens import LegacyTokens
from payment_service.core.errors import Malformed

HEX = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0"
WORDS = "exactly-32-characters-of-a-key!!"


@pytest.mark.parametrize("secret", [HEX, WORDS, "any other length", HEX[:-1] + "z"])
def test_each_form_of_key_opens_what_it_sealed(secret: str) -> None:
    text = encrypted("pm_card_visa", secret)
    assert LegacyTokens([secret]).open(text) == "pm_card_visa"
    assert LegacyTokens(["another", secret]).open(text) == "pm_card_visa", "whichever it was"
    with pytest.raises(Malformed, match="none of the keys"):
        LegacyTokens(["another"]).open(text)


def test_what_was_changed_or_is_none_is_refused() -> None:
    tokens = LegacyTokens([WORDS])
    iv, tag, sealed = encrypted("pm_card_visa", WORDS).split(":")
    other = base64.b64encode(bytes([base64.b64decode(sealed)[0] ^ 1]) + base64.b64decode(sealed)[1:]).decode()
    for text in (f"{iv}:{tag}:{other}", f"{tag}:{iv}:{sealed}"):
        with pytest.raises(Malformed, match="none of the keys"):
            tokens.open(text)
    for text in ("", "pm_card_visa", "a:b", f"{iv}:{sealed}:{tag}x", f"{iv}:{iv}{iv}:{sealed}"):
        with pytest.raises(Malformed, match="not as the old service"):
            tokens.open(text)
    assert WORDS not in repr(tokens)
