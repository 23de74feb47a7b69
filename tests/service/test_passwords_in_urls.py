"""A password in a URL is never shown, whatever characters it has: in settings, errors, the doctor's words and logs."""

from __future__ import annotations

import contextlib
import logging
import re
import traceback
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hs_stream.core.errors import HsStreamError
from hs_stream.core.urls import checked_url, host_of, redacted, said_of
from hs_stream.service.settings import Settings
from hs_stream.service.settings_file import load_settings
from hs_stream.store.mongo import MongoStore
from hs_stream.store.open import open_store
from hs_stream_connectors.mqtt.options import MqttOptions

SECRET = "жщюЖЩЮ\u2167"  # in no message of anybody; the last one is changed by NFKC, which urlsplit complains of
passwords = st.text(alphabet=SECRET + "/#?@:%&=[]+;,. \\'\"{}*7", min_size=1, max_size=12).map(lambda text: text + "ж")
# Without a host, what is after an @ is one; without an @ a number is a port, and what is after it a path.
hidden = (
    st.tuples(
        passwords, st.sampled_from(["@127.0.0.1:1", "@127.0.0.1:1/hs?retryWrites=true", "@[::1]:1", "@a:1,b:2/hs", ""])
    )
    .filter(lambda pair: pair[1] or not re.match(r"\d{1,5}[,/?#]|.*@", pair[0]))
    .map("".join)
)
schemes = st.sampled_from(["mqtt", "mqtts", "mongodb", "mongodb+srv", "kettle"])
several = settings(max_examples=300, deadline=None)


def tells(text: str) -> bool:
    return any(letter in text for letter in SECRET) or "%D0" in text.upper()


def told_by(attempt: Callable[[], object]) -> str:
    """What is seen of what ``attempt`` makes, or of its error."""
    try:
        return repr(attempt())
    except (HsStreamError, ValueError) as error:
        return "".join([str(error), *traceback.format_exception(error)])


@given(schemes, hidden)
@several
@example("mqtt", "12/34ж@h")
def test_no_password_is_in_what_is_shown_of_a_url(scheme: str, rest: str) -> None:
    url = f"{scheme}://anna:{rest}"
    assert not tells(redacted(url))
    assert not tells(host_of(url))
    with contextlib.suppress(ValueError):
        checked_url(url)
        assert scheme not in ("mqtt", "mqtts") or not tells(told_by(lambda: MqttOptions(url).host))
    assert not tells(told_by(lambda: checked_url(url) and None))
    assert not tells(told_by(lambda: MqttOptions(url)))


@given(hidden)
@settings(max_examples=10, deadline=None)
@example("12/34ж@h")
@example("жⅧ@h:1")
def test_no_password_is_in_an_error_of_the_settings(rest: str) -> None:
    for url in (f"mqtt://anna:{rest}", f"nonsense://anna:{rest}", f"anna:{rest}"):
        for section in ("mqtt", "store"):
            assert not tells(told_by(lambda: load_settings(None, **{section: {"url": url}}))), url  # noqa: B023


@given(passwords)
@settings(max_examples=20, deadline=None)
async def test_no_password_is_in_an_error_of_a_store(password: str) -> None:
    for scheme in ("mongodb", "nonsense", "memory", "sqlite"):
        url = f"{scheme}://anna:{password}@127.0.0.1:1/hs"
        if scheme != "mongodb":
            assert not tells(told_by(lambda: open_store(url))), scheme  # noqa: B023
            continue
        store = MongoStore(url, server_timeout=0.02)
        with pytest.raises(HsStreamError) as caught:
            await store.open()
        assert not tells("".join([str(caught.value), *traceback.format_exception(caught.value)]))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("mongodb://u:p@h1,h2:27018/db?replicaSet=a", "mongodb://u:***@h1,h2:27018/db?replicaSet=a"),
        ("mongodb://h1:27017,h2:27018/db", "mongodb://h1:27017,h2:27018/db"),
        ("mqtt://[::1]:1883", "mqtt://[::1]:1883"),
        ("mqtt://anna@h", "mqtt://anna@h"),
        ("sqlite:///var/hs_stream.db", "sqlite:///var/hs_stream.db"),
        ("sqlite:////var/a:b.db", "sqlite:////var/a:b.db"),
        ("memory://", "memory://"),
        ("mongodb://h/db?tlsCertificateKeyFilePassword=x&a=b", "mongodb://h/db?tlsCertificateKeyFilePassword=***&a=b"),
        ("mongodb:/anna:secret@h", "mongodb:***@h"),
    ],
)
def test_what_is_no_password_is_shown(url: str, shown: str) -> None:
    assert redacted(url) == shown


def test_what_a_library_says_is_quoted_where_it_holds_no_password() -> None:
    assert said_of("mqtt://anna:secret@h", "no such host h") == ": no such host h"
    assert said_of("mqtt://anna:se%40cret@h", "bad port 'cret'") == ""
    with pytest.raises(ValueError, match="out of range"):
        checked_url("mqtt://h:99999")


async def test_a_password_that_would_pass_for_a_host_is_refused_before_anything_is_asked(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises(HsStreamError, match="percent-encode") as caught:
        await MongoStore("mongodb://anna:12/34@host/hs", server_timeout=0.1).open()
    assert "12" not in str(caught.value) + caplog.text
    with pytest.raises(HsStreamError, match="percent-encode") as caught:
        MqttOptions("mqtt://anna:12#34@host")
    assert "12" not in str(caught.value)


def test_settings_show_no_password_in_their_repr() -> None:
    made = Settings(store={"url": "mongodb://anna:a/b#c@h/hs"}, mqtt={"url": "mqtt://anna:a%2Fb@h"})
    assert "a/b" not in repr(made)
    assert "a%2Fb" not in repr(made)
