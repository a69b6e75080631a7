"""Where things are, and how failures that are no test's are told."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = ROOT / "complement"
BASELINE = HERE / "results.jsonl"
DOCUMENT = ROOT / "docs" / "conformance.md"
CACHE = pathlib.Path(os.environ.get("HEARTH_CACHE") or pathlib.Path.home() / ".cache" / "hearth")
OWN_CACHE = CACHE / "complement"
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or CACHE / "target")
IMAGE = "hearth-complement:latest"


class Unusable(Exception):
    """The suite could not run: neither a pass nor a regression."""


def say(text):
    print(f"\n== {text}", flush=True)


def as_root(command):
    return command if os.geteuid() == 0 else ["sudo", *command]


def run(command, what, **options):
    """Runs `command`; its output is shown only if it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    output = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        sys.stderr.write(output)
        last = next((line for line in reversed(output.splitlines()) if line.strip()), "no output")
        raise Unusable(f"{what}: status {done.returncode}: {last.strip()}")
    return output
