"""The image as it is run: nobody's root, nothing writable but its volume, ended in time."""

import json

import pytest

from exporter import __version__
from tests.container.engine import IMAGE, Engine, found
from tests.process.agent_process import until

pytestmark = [pytest.mark.container, pytest.mark.timeout(600)]

KEY = "--env=CARTESIA_API_KEY=sk_car_test.of_the_image"
DEAD_API = "--env=CARTESIA_BASE_URL=http://127.0.0.1:9"


@pytest.fixture(scope="module")
def engine() -> Engine:
    engine = found()
    engine.build(VERSION=__version__, REVISION="of-the-test")
    return engine


def test_the_image_says_what_it_is_and_runs_as_a_number(engine):
    (image,) = json.loads(engine.do("image", "inspect", IMAGE).stdout)
    config = image["Config"]
    assert config["User"] == "10001:10001"
    assert config["Labels"]["org.opencontainers.image.version"] == __version__
    assert config["Labels"]["org.opencontainers.image.revision"] == "of-the-test"
    assert list(config["Volumes"]) == ["/data"]
    said = engine.do("run", "--rm", *engine.run_flags, IMAGE, "--version").stdout
    assert said == f"cartesia-exporter, version {__version__}\n"


def test_the_image_holds_no_build_tools_and_nothing_that_the_agent_may_change(engine):
    look = (
        "import glob, os, sys;"
        "print(glob.glob(sys.prefix + '/bin/pip*'), os.access(sys.prefix, os.W_OK), os.getuid())"
    )
    python = ("--entrypoint=/opt/cartesia-exporter/bin/python", IMAGE, "-c", look)
    assert engine.do("run", "--rm", *engine.run_flags, *python).stdout == "[] False 10001\n"


def test_a_restricted_container_is_healthy_while_the_api_is_down_and_keeps_its_state(engine):
    volume = engine.do("volume", "create").stdout.strip()
    mounted = f"--volume={volume}:/data"
    try:
        with engine.container(KEY, DEAD_API, mounted) as name:
            until(lambda: "msg=listening" in engine.do("logs", name).stderr, seconds=30)
            asked = engine.do("exec", name, "cartesia-exporter", "health")
            assert asked.stdout.startswith("cartesia-exporter is healthy")
            written = engine.do("exec", name, "touch", "/opt/cartesia-exporter/x", ok=False)
            assert "Read-only file system" in written.stderr
            engine.do("stop", "-t", "10", name)
            (state,) = json.loads(engine.do("inspect", name).stdout)
            assert state["State"]["ExitCode"] == 0  # 137 would say that it had to be killed
        kept = ("ls", "-ln", "/data")
        listing = engine.do(
            "run", "--rm", *engine.run_flags, mounted, "--entrypoint=", IMAGE, *kept
        )
        assert "state.db" in listing.stdout
        assert " 10001 10001 " in listing.stdout
    finally:
        engine.do("volume", "rm", "--force", volume)


def test_a_key_that_is_refused_at_the_start_ends_the_container_with_2(engine):
    admin = "--env=CARTESIA_API_KEY=sk_car_admin_of_the_test"
    ended = engine.do("run", "--rm", *engine.run_flags, admin, IMAGE, ok=False)
    assert ended.returncode == 2
    assert "of_the_test" not in ended.stderr
