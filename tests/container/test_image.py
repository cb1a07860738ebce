"""The image in a restricted container: user, file system, health, shutdown."""

import json

import pytest

from exporter import __version__
from tests.container.engine import IMAGE, Engine, find_engine
from tests.process.agent_process import until

pytestmark = [pytest.mark.container, pytest.mark.timeout(600)]

KEY = "--env=CARTESIA_API_KEY=sk_car_test.of_the_image"
DEAD_API = "--env=CARTESIA_BASE_URL=http://127.0.0.1:9"


@pytest.fixture(scope="module")
def engine() -> Engine:
    engine = find_engine()
    engine.build(VERSION=__version__, REVISION="of-the-test")
    return engine


def test_the_image_has_labels_and_a_numeric_user(engine):
    (image,) = json.loads(engine.run("image", "inspect", IMAGE).stdout)
    config = image["Config"]
    assert config["User"] == "10001:10001"
    assert config["Labels"]["org.opencontainers.image.version"] == __version__
    assert config["Labels"]["org.opencontainers.image.revision"] == "of-the-test"
    assert list(config["Volumes"]) == ["/data"]
    output = engine.run("run", "--rm", *engine.run_flags, IMAGE, "--version").stdout
    assert output == f"cartesia-exporter {__version__} (commit of-the-test)\n"


def test_the_image_has_no_build_tools_and_no_writable_files(engine):
    code = (
        "import glob, os, sys;"
        "print(glob.glob(sys.prefix + '/bin/pip*'), os.access(sys.prefix, os.W_OK), os.getuid())"
    )
    python = ("--entrypoint=/opt/cartesia-exporter/bin/python", IMAGE, "-c", code)
    assert engine.run("run", "--rm", *engine.run_flags, *python).stdout == "[] False 10001\n"


def test_a_restricted_container_is_healthy_without_the_api_and_keeps_its_state(engine):
    volume = engine.run("volume", "create").stdout.strip()
    mounted = f"--volume={volume}:/data"
    try:
        with engine.container(KEY, DEAD_API, mounted) as name:
            until(lambda: "msg=listening" in engine.run("logs", name).stderr, seconds=30)
            done = engine.run("exec", name, "cartesia-exporter", "health")
            assert done.stdout.startswith("cartesia-exporter is healthy")
            written = engine.run("exec", name, "touch", "/opt/cartesia-exporter/x", check=False)
            assert "Read-only file system" in written.stderr
            engine.run("stop", "-t", "10", name)
            (state,) = json.loads(engine.run("inspect", name).stdout)
            assert state["State"]["ExitCode"] == 0  # 137: killed
        command = ("ls", "-ln", "/data")
        listing = engine.run(
            "run", "--rm", *engine.run_flags, mounted, "--entrypoint=", IMAGE, *command
        )
        assert "state.db" in listing.stdout
        assert " 10001 10001 " in listing.stdout
    finally:
        engine.run("volume", "rm", "--force", volume)


def test_a_refused_key_ends_the_container_with_2(engine):
    admin = "--env=CARTESIA_API_KEY=sk_car_admin_of_the_test"
    ended = engine.run("run", "--rm", *engine.run_flags, admin, IMAGE, check=False)
    assert ended.returncode == 2
    assert "of_the_test" not in ended.stderr
