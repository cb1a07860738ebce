"""The web configuration file: errors, settings and changes."""

import errno
from functools import partial
from pathlib import Path

import pytest

from exporter.config import ConfigError
from exporter.config.web_file import WebFile
from exporter.web.live_config import RateLimit, UnusableError, WebSettings
from tests.web.authenticated_server import WebConfigFixture, hash_of

HERE = Path(__file__).parent
BAD = sorted((HERE / "bad_web").glob("*.yaml"))
EXAMPLE = HERE.parent.parent / "deploy" / "prometheus" / "web-config.example.yml"


def problems(file: WebFile) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        file.read()
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    return caught.value.problems


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_an_invalid_file_is_refused_with_exactly_these_messages(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    found = problems(WebFile(Path(path.name)))
    assert found == path.with_suffix(".txt").read_text(encoding="utf-8").splitlines()
    assert "hunter2" not in "".join(found)


@pytest.mark.parametrize(
    "text",
    ["", "# nothing\n", "{}", "tls_server_config: {}\nbasic_auth_users:\nrate_limit: {interval: 0}",
     "tls_server_config: {min_version: null}", "rate_limit: {interval: '0'}"],
)  # fmt: skip
def test_a_file_without_settings_means_plain_http_without_users(tmp_path, text):
    path = tmp_path / "web.yml"
    path.write_text(text)
    assert WebFile(path).read() == WebSettings()


def test_any_tls_key_needs_a_certificate(tmp_path):
    """In exporter-toolkit some keys alone are ignored, and plain HTTP is served."""
    found = problems(
        WebFile(WebConfigFixture(tmp_path, tls_server_config={"min_version": "TLS13"}).path)
    )
    assert found == [
        "line 1: tls_server_config.cert: missing; TLS needs cert or cert_file",
        "line 1: tls_server_config.key: missing; TLS needs key or key_file",
    ]


@pytest.mark.parametrize(
    ("interval", "seconds"),
    [("1s", 1), ("1.5s", 1.5), ("100ms", 0.1), ("1m30s", 90), ("2h", 7200), ("250us", 0.00025),
     ("5µs", 0.000005), ("100ns", 1e-7)],
)  # fmt: skip
def test_an_interval_has_the_form_of_a_go_duration(tmp_path, interval, seconds):
    file = WebConfigFixture(tmp_path, rate_limit={"interval": interval, "burst": 7})
    assert WebFile(file.path).read().rate_limit == RateLimit(seconds, 7)


@pytest.mark.parametrize("interval", ["", "s", "1", "-1s", "1s ", "1.s", "1d", "1e3s", True, 5, []])
def test_invalid_intervals_are_refused(tmp_path, interval):
    file = WebConfigFixture(tmp_path, rate_limit={"interval": interval, "burst": 7})
    word = "must be a duration such as 100ms, 1.5s or 1m30s"
    assert problems(WebFile(file.path)) == [f"line 1: rate_limit.interval: {word}"]


@pytest.mark.parametrize("prefix", ["$2a$", "$2b$", "$2x$", "$2y$"])
def test_every_prefix_of_bcrypt_is_accepted(tmp_path, prefix):
    hashed = prefix + hash_of("x")[4:]
    settings = WebFile(WebConfigFixture(tmp_path, basic_auth_users={"ännchen": hashed}).path).read()
    assert settings.users == {"ännchen".encode(): hashed.encode()}


def test_relative_paths_start_at_the_folder_of_the_file(tmp_path, monkeypatch):
    file = WebConfigFixture(tmp_path)
    file.write(tls_server_config=file.issue())
    monkeypatch.chdir("/")
    assert WebFile(file.path).read().tls is not None
    monkeypatch.chdir(tmp_path)
    assert WebFile(Path(file.path.name)).read().tls is not None


def test_a_key_of_another_certificate_is_refused_under_its_own_name(tmp_path):
    file = WebConfigFixture(tmp_path)
    pair = file.issue()
    old = (tmp_path / "key.pem").read_text()
    file.issue()
    file.write(tls_server_config={"cert_file": pair["cert_file"], "key": old})
    assert problems(WebFile(file.path)) == [
        "line 1: tls_server_config.key: must be the key of the certificate"
    ]


def test_an_invalid_client_ca_is_refused(tmp_path):
    file = WebConfigFixture(tmp_path)
    garbled = "-----BEGIN CERTIFICATE-----\nhunter2\n-----END CERTIFICATE-----\n"
    clients = {"client_auth_type": "RequireAndVerifyClientCert", "client_ca": garbled}
    file.write(tls_server_config={**file.issue(), **clients})
    assert problems(WebFile(file.path)) == [
        "line 1: tls_server_config.client_ca: must contain PEM certificates"
    ]


def test_settings_without_effect_are_noted(tmp_path):
    file = WebConfigFixture(tmp_path)
    suites = ["TLS_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"]
    tls = {**file.issue(), "cipher_suites": suites}
    file.write(tls_server_config=tls, http_server_config={"http2": True})
    assert WebFile(file.path).read().notes == (
        "http_server_config.http2 has no effect: only HTTP/1.1 is served",
        "tls_server_config.cipher_suites has no effect on TLS 1.3: its suites are all on",
    )


def test_only_changed_files_are_read_again(tmp_path):
    file = WebConfigFixture(tmp_path)
    pair = file.issue()
    file.write(tls_server_config=pair)
    web = WebFile(file.path)
    web.read()
    assert web.read_if_changed() is None
    (tmp_path / "key.pem").rename(tmp_path / "kept.pem")
    with pytest.raises(UnusableError, match=r"key_file: cannot read .*/key.pem: no such file"):
        web.read_if_changed()
    assert web.read_if_changed() is None
    (tmp_path / "kept.pem").rename(tmp_path / "key.pem")
    settings = web.read_if_changed()
    assert settings is not None
    assert settings.tls is not None


def test_a_change_is_read_later_after_a_lack_of_file_descriptors(tmp_path, monkeypatch):
    file = WebConfigFixture(tmp_path)
    file.write(tls_server_config=file.issue())
    web = WebFile(file.path)
    web.read()
    file.issue()
    with monkeypatch.context() as full:
        full.setattr("os.memfd_create", partial(raises, OSError(errno.EMFILE, "too many files")))
        for _ in range(2):
            with pytest.raises(OSError, match="too many files"):
                web.read_if_changed()
    assert web.read_if_changed() is not None


def raises(error: Exception, *_: object) -> None:
    raise error


def test_a_too_large_file_is_refused(tmp_path):
    path = tmp_path / "web.yml"
    path.write_text("#" * (1024 * 1024 + 1))
    assert problems(WebFile(path)) == [f"{path}: cannot be read: larger than 1024 KiB"]


def test_the_example_is_valid(tmp_path):
    file = WebConfigFixture(tmp_path)
    file.issue()
    file.path.write_text(EXAMPLE.read_text(encoding="utf-8"), encoding="utf-8")
    settings = WebFile(file.path).read()
    assert settings.tls is not None
    assert settings.users
    assert settings.notes == ()
