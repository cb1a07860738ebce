import pytest

from exporter.config.secrets import EnvironmentSecret, FileSecret, TextSecret, check_path
from exporter.config.types import (
    check_api_key,
    check_date,
    check_header_text,
    check_proxy_url,
    check_signing_secret,
    check_token,
    check_url,
    check_without_userinfo,
)
from exporter.core.secret import Secret, SecretError


def accept_all(text):
    return None


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example/x?y=1#z",
        "https://user:pass@hooks.example",
        "http://localhost:8080/x",
        "http://[::1]:8080",
        "https://bücher.example",
    ],
)
def test_usable_urls_pass(url):
    check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hooks.example",
        "//hooks.example",
        "ftp://hooks.example",
        "https://",
        "https:///path",
        "https://host:port",
        "https://host:99999",
        "https://host:0",
        "https://[::1",
        "https://host/a b",
        "https://host/\nX: y",
        "https://host\\@other",
        "https://host/\ud800",
        "http://hooks.example",
        "http://localhost@hooks.example",
        "http://127.0.0.1.example",
    ],
)
def test_unusable_urls_are_refused_without_repeating_them(url):
    with pytest.raises(ValueError, match=r"^must ") as caught:
        check_url(url)
    assert "hooks" not in str(caught.value)


def test_userinfo_is_found_even_when_empty():
    with pytest.raises(ValueError, match="user name"):
        check_without_userinfo("https://@api.example")


@pytest.mark.parametrize("url", ["http://proxy:3128/path", "socks5://proxy:1080", "proxy:3128"])
def test_what_is_no_http_proxy_is_refused(url):
    with pytest.raises(ValueError, match="must be the URL of a proxy such as"):
        check_proxy_url(url)


def test_an_admin_key_is_refused_with_the_reason_and_without_the_key():
    with pytest.raises(ValueError, match="admin routes; use a standard") as caught:
        check_api_key("sk_car_admin_hunter2")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("key", ["sk_car_hun ter2", "sk_car_hunter2\nX: y", "sk_car_hünter2", ""])
def test_a_garbled_key_is_refused_without_the_key(key):
    with pytest.raises(ValueError, match="must be printable ASCII without spaces") as caught:
        check_api_key(key)
    assert "ter2" not in str(caught.value)


@pytest.mark.parametrize("text", ["2026-13-01", "2026-02-30", "20260301", "2026-3-1", "", "next"])
def test_what_is_no_date_is_no_version(text):
    with pytest.raises(ValueError, match="must be a date"):
        check_date(text)


@pytest.mark.parametrize("key", ["sk_car_abc.def-ghi_jkl", "a-key-of-a-proxy"])
def test_any_other_key_passes(key):
    check_api_key(key)


ONE = "whsec_" + "QUFB" * 8  # 24 bytes
LONGEST = "whsec_" + "QUFB" * 21 + "QQ=="  # 64 bytes


@pytest.mark.parametrize("text", [ONE, LONGEST, f"{ONE}\n{LONGEST}", f"{ONE}\r\n\n  {LONGEST} "])
def test_one_or_two_signing_secrets_pass(text):
    check_signing_secret(text)


@pytest.mark.parametrize(
    "text",
    [
        ONE.removeprefix("whsec_"),
        ONE[:-4],  # 21 bytes
        LONGEST.replace("QQ==", "QUE="),  # 65 bytes
        ONE + "!",
        ONE[:-1],
        "whsec_",
        "whsec_ünicode",
        f"{ONE} {ONE}",
        f"{ONE}\nother",
        f"{ONE}\n{ONE}\n{ONE}",
    ],
)
def test_other_signing_secrets_are_refused(text):
    with pytest.raises(ValueError, match=r"^must (be whsec_ followed by|have at most two lines)"):
        check_signing_secret(text)


def test_a_header_or_a_token_cannot_start_another_line():
    for check in (check_header_text, check_token):
        with pytest.raises(ValueError, match=r"^must "):
            check("a\r\nX: y")


@pytest.mark.parametrize("text", ["", "  ", "a\0b", "a\nb"])
def test_what_cannot_be_a_path_is_refused(text):
    with pytest.raises(ValueError, match="must be the path of a file"):
        check_path(text)


def test_a_text_secret_is_stripped_and_hidden():
    secret: Secret = TextSecret(" hunter2\n", "accounts.0.api_key", accept_all)
    assert secret() == "hunter2"
    assert secret.source == "accounts.0.api_key"
    assert "hunter2" not in repr(secret) + str(secret)


def test_a_file_is_read_again_at_each_call(tmp_path):
    path = tmp_path / "key"
    path.write_bytes(b"\xef\xbb\xbf first \n")
    secret: Secret = FileSecret(path, accept_all)
    assert secret() == "first"
    path.write_text("second")
    assert secret() == "second"
    assert secret.source == str(path)


def test_a_rotated_file_is_checked_again(tmp_path):
    path = tmp_path / "key"
    path.write_text("sk_car_admin_hunter2")
    with pytest.raises(SecretError, match="admin routes") as caught:
        FileSecret(path, check_api_key)()
    assert str(caught.value).startswith(f"{path} is an admin key")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (b"x" * (64 * 1024 + 1), "larger than 64 KiB"),
    ],
)
def test_a_bad_file_is_named_with_the_reason(tmp_path, content, reason):
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(SecretError, match=reason) as caught:
        FileSecret(path, accept_all)()
    assert str(path) in str(caught.value)


def test_a_secret_of_exactly_64_kib_is_read(tmp_path):
    path = tmp_path / "key"
    path.write_text("x" * 64 * 1024)
    assert len(FileSecret(path, accept_all)()) == 64 * 1024


def test_a_missing_file_a_folder_and_a_pipe_are_refused_without_waiting(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe")
    expected = {
        "missing": "no such file",
        "pipe": "not a regular file",
        ".": "not a regular file",
        "x" * 300: "file name too long",
    }
    for name, reason in expected.items():
        path = tmp_path / name
        with pytest.raises(SecretError) as caught:
            FileSecret(path, accept_all)()
        assert str(caught.value) == f"cannot read {path}: {reason}"


def test_a_variable_is_read_and_named_with_a_dollar(tmp_path):
    secret: Secret = EnvironmentSecret("KEY", {"KEY": " hunter2 "}, accept_all)
    assert secret() == "hunter2"
    assert secret.source == "$KEY"
    assert "hunter2" not in repr(secret) + str(secret)


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        ({}, "$KEY is not set"),
        ({"KEY": ""}, "$KEY is empty"),
        ({"KEY": "\udcff"}, "$KEY is not UTF-8 text"),
    ],
)
def test_a_bad_variable_is_named_with_the_reason(environ, text):
    with pytest.raises(SecretError) as caught:
        EnvironmentSecret("KEY", environ, accept_all)()
    assert str(caught.value) == text


def test_secrets_are_equal_when_they_come_from_the_same_place(tmp_path):
    assert FileSecret(tmp_path, accept_all) == FileSecret(tmp_path, check_token)
    assert TextSecret("a", "receivers.0.url", accept_all) == TextSecret("a", "x", accept_all)
    assert TextSecret("a", "x", accept_all) != TextSecret("b", "x", accept_all)
