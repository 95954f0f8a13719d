"""No name of a component is compared: under other names everything is the same, to the bit."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("renamed.py")


def printed(*arguments):
    command = [sys.executable, "-P", str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_logits_do_not_depend_on_names():
    """`nox -s renamed` runs core's tests so as well."""
    plain = printed()
    assert len(plain) >= 78 + 39
    assert len(set(plain)) > 95
    assert printed("renamed") == plain
