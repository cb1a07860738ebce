"""Entries of NO_PROXY, in the forms that curl and Go accept."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.core.no_proxy import bypasses_proxy


@pytest.mark.parametrize(
    ("no_proxy", "host"),
    [
        ("*", "api.test"),
        ("other.test,*", "api.test"),
        ("api.test", "api.test"),
        ("API.Test", "api.test"),
        ("api.test", "API.TEST"),
        ("api.test.", "api.test"),
        ("api.test", "api.test."),
        ("test", "api.test"),
        (".test", "api.test"),
        (".api.test", "api.test"),
        (".api.test", "a.b.api.test"),
        ("*.test", "api.test"),
        ("*.test", "a.b.test"),
        ("other.test, api.test", "api.test"),
        ("other.test api.test", "api.test"),
        (" ,,\tapi.test ,", "api.test"),
        ("api.test:443", "api.test"),
        (".test:443", "api.test"),
        ("bücher.test", "xn--bcher-kva.test"),
        ("xn--bcher-kva.test", "bücher.test"),
        ("10.1.2.3", "10.1.2.3"),
        ("10.1.2.3:443", "10.1.2.3"),
        ("10.0.0.0/8", "10.1.2.3"),
        ("10.1.2.3/8", "10.200.0.1"),
        ("0.0.0.0/0", "10.1.2.3"),
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("::1", "[::1]"),
        ("[::1]:443", "::1"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("2001:db8::/32", "2001:db8:1::5"),
        ("[2001:db8::]/32", "2001:db8:1::5"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("10.0.0.0/8", "::ffff:10.1.2.3"),
        ("localhost", "localhost"),
    ],
)
def test_the_host_is_reached_without_the_proxy(no_proxy, host):
    assert bypasses_proxy(no_proxy, host, 443)
    assert bypasses_proxy(f"first.example,{no_proxy}, 192.0.2.0/24", host, 443)


@pytest.mark.parametrize(
    ("no_proxy", "host"),
    [
        ("", "api.test"),
        (" , ", "api.test"),
        ("pi.test", "api.test"),
        ("api.test", "api.test.example"),
        ("api.test", "test"),
        ("*.api.test", "api.test"),
        ("a*.test", "api.test"),
        ("api.test:8443", "api.test"),
        ("api.test:", "api.test"),
        ("api.test:https", "api.test"),
        ("api.test:99999", "api.test"),
        ("https://api.test", "api.test"),
        (".", "api.test"),
        (":443", "api.test"),
        ("10.1.2.3", "10.1.2.30"),
        ("10.1.2.3:8443", "10.1.2.3"),
        ("2.3", "10.1.2.3"),
        (".2.3", "10.1.2.3"),
        ("10.0.0.0/8", "11.1.2.3"),
        ("10.0.0.0/33", "10.1.2.3"),
        ("10.0.0.0/x", "10.1.2.3"),
        ("/", "10.1.2.3"),
        ("::/0", "10.1.2.3"),
        ("0.0.0.0/0", "::1"),
        ("2001:db8::/32", "2001:db9::1"),
        ("[::1]:8443", "::1"),
        ("127.0.0.0/8", "localhost"),
    ],
)
def test_the_host_is_reached_through_the_proxy(no_proxy, host):
    assert not bypasses_proxy(no_proxy, host, 443)


@given(st.ip_addresses(), st.integers(0, 128), st.ip_addresses())
def test_a_range_contains_what_the_standard_library_says(address, length, host):
    length = min(length, address.max_prefixlen)
    if getattr(host, "ipv4_mapped", None) or getattr(address, "ipv4_mapped", None):
        return
    expected = host in ip_network(f"{address}/{length}", strict=False)
    assert bypasses_proxy(f"{address}/{length}", str(host), 443) == expected


@given(st.text(max_size=60), st.text(min_size=1, max_size=30), st.integers(1, 65_535))
def test_any_text_is_accepted(no_proxy, host, port):
    assert bypasses_proxy(no_proxy, host, port) in (True, False)
