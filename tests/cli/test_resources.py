"""What the process asks for before it sets to work; that the command does is in test_start.py."""

import gc
import resource
import sys

from exporter.cli import process as resources


def test_what_was_imported_is_not_looked_over_for_garbage_while_everything_waits():
    interval = sys.getswitchinterval()
    try:
        resources.keep_loop_responsive()
        assert gc.get_freeze_count() > 10_000
        assert sys.getswitchinterval() < interval
    finally:
        gc.unfreeze()
        sys.setswitchinterval(interval)


def test_as_many_files_may_be_open_as_the_hard_limit_allows():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
        resources.raise_open_files_limit()
        now = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert (now[0] > 512, now[1]) == (True, hard)
        resources.raise_open_files_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == now
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
