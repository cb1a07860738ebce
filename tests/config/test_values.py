"""Value checks and the three forms of a secret."""

import pytest

from exporter.config.receivers import AppriseReceiver
from exporter.config.secrets import EnvironmentSecret, FileSecret, TextSecret, to_path
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


def test_valid_urls_are_accepted():
    for url in (
        "https://hooks.example/x?y=1#z",
        "https://user:pass@hooks.example",
        "http://localhost:8080/x",
        "http://[::1]:8080",
        "https://bücher.example",
    ):
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
def test_invalid_urls_are_refused_and_not_repeated(url):
    with pytest.raises(ValueError, match=r"^must ") as caught:
        check_url(url)
    assert "hooks" not in str(caught.value)


def test_empty_userinfo_is_refused():
    with pytest.raises(ValueError, match="user name"):
        check_without_userinfo("https://@api.example")


@pytest.mark.parametrize("url", ["http://proxy:3128/path", "socks5://proxy:1080", "proxy:3128"])
def test_invalid_proxy_urls_are_refused(url):
    with pytest.raises(ValueError, match="must be the URL of a proxy such as"):
        check_proxy_url(url)


def test_an_admin_key_is_refused_and_not_repeated():
    with pytest.raises(ValueError, match="admin routes; use a standard") as caught:
        check_api_key("sk_car_admin_hunter2")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("key", ["sk_car_hun ter2", "sk_car_hunter2\nX: y", "sk_car_hünter2", ""])
def test_an_invalid_key_is_refused_and_not_repeated(key):
    with pytest.raises(ValueError, match="must be printable ASCII without spaces") as caught:
        check_api_key(key)
    assert "ter2" not in str(caught.value)


@pytest.mark.parametrize("text", ["2026-13-01", "2026-02-30", "20260301", "2026-3-1", "", "next"])
def test_an_api_version_that_is_no_date_is_refused(text):
    with pytest.raises(ValueError, match="must be a date"):
        check_date(text)


QUOTED = ['"{}"', "'{}'", "`{}`", "\u201c{}\u201d", '"{}']
NAMED = ["CARTESIA_API_KEY={}", "export KEY={}", "api_key = {}", 'KEY="{}"']
HEADED = ["Bearer {}", "bearer  {}", "Authorization: Bearer {}", "X-API-Key: {}"]
VALUES = [
    (check_api_key, "sk_car_hunter2.x"),
    (check_token, "hunter2=="),
    (check_signing_secret, "whsec_" + "QUFB" * 8),
    (check_url, "https://hooks.example/hunter2"),
    (check_proxy_url, "http://user:hunter2@proxy:3128"),
    (AppriseReceiver.SECRETS[0].check, "slack://hunter2/x/y"),
]


@pytest.mark.parametrize(("check", "value"), VALUES)
@pytest.mark.parametrize(
    ("forms", "reason"),
    [
        (QUOTED, "must not be in quotes; remove them"),
        (NAMED, "must be the value alone; remove the name and the ="),
        (HEADED, 'must be the value alone; remove "Bearer"'),
    ],
)
def test_values_copied_with_quotes_name_or_header_are_refused_with_what_to_do(
    check, value, forms, reason
):
    check(value)
    for form in forms:
        with pytest.raises(ValueError, match=reason) as caught:
            check(form.format(value))
        assert "hunter2" not in str(caught.value)
        assert value not in str(caught.value)


def test_base64_padding_and_quotes_inside_are_accepted():
    check_api_key("abc=")
    check_token("YWJj==")
    check_token("a'b")
    check_url("https://hooks.example/o'hara?name=value'")


def test_a_quoted_path_is_refused():
    for text in ('"/run/secrets/key"', "'state.db'"):
        with pytest.raises(ValueError, match="must not be in quotes; remove them"):
            to_path(text)


def test_other_keys_are_accepted():
    for key in ("sk_car_abc.def-ghi_jkl", "a-key-of-a-proxy"):
        check_api_key(key)


ONE = "whsec_" + "QUFB" * 8  # 24 bytes
LONGEST = "whsec_" + "QUFB" * 21 + "QQ=="  # 64 bytes


def test_one_or_two_signing_secrets_are_accepted():
    for text in (ONE, LONGEST, f"{ONE}\n{LONGEST}", f"{ONE}\r\n\n  {LONGEST} "):
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
def test_invalid_signing_secrets_are_refused(text):
    with pytest.raises(ValueError, match=r"^must (be whsec_ followed by|have at most two lines)"):
        check_signing_secret(text)


def test_line_breaks_in_headers_and_tokens_are_refused():
    for check in (check_header_text, check_token):
        with pytest.raises(ValueError, match=r"^must "):
            check("a\r\nX: y")


@pytest.mark.parametrize("text", ["", "  ", "a\0b", "a\nb"])
def test_invalid_paths_are_refused(text):
    with pytest.raises(ValueError, match="must be the path of a file"):
        to_path(text)


def test_a_text_secret_is_stripped_and_not_in_its_repr():
    secret: Secret = TextSecret(" hunter2\n", "accounts.0.api_key", accept_all)
    assert secret() == "hunter2"
    assert secret.source == "accounts.0.api_key"
    assert "hunter2" not in repr(secret) + str(secret)


def test_a_file_secret_is_read_at_each_call(tmp_path):
    path = tmp_path / "key"
    path.write_bytes(b"\xef\xbb\xbf first \n")
    secret: Secret = FileSecret(path, accept_all)
    assert secret() == "first"
    path.write_text("second")
    assert secret() == "second"
    assert secret.source == str(path)


def test_a_file_secret_is_checked_at_each_call(tmp_path):
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
def test_an_error_of_a_file_secret_names_file_and_reason(tmp_path, content, reason):
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(SecretError, match=reason) as caught:
        FileSecret(path, accept_all)()
    assert str(path) in str(caught.value)


def test_a_file_secret_may_have_64_kib(tmp_path):
    path = tmp_path / "key"
    path.write_text("x" * 64 * 1024)
    assert len(FileSecret(path, accept_all)()) == 64 * 1024


def test_missing_files_folders_and_pipes_are_refused_at_once(tmp_path):
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


def test_an_environment_secret_has_the_variable_as_source():
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
def test_an_error_of_an_environment_secret_names_variable_and_reason(environ, text):
    with pytest.raises(SecretError) as caught:
        EnvironmentSecret("KEY", environ, accept_all)()
    assert str(caught.value) == text


def test_secrets_with_the_same_origin_are_equal(tmp_path):
    assert FileSecret(tmp_path, accept_all) == FileSecret(tmp_path, check_token)
    assert TextSecret("a", "receivers.0.url", accept_all) == TextSecret("a", "x", accept_all)
    assert TextSecret("a", "x", accept_all) != TextSecret("b", "x", accept_all)
