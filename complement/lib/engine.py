"""A Docker engine: the one that runs, or one of our own for as long as we need it."""

import contextlib
import os
import shutil
import signal
import subprocess
import time

from common import OWN_CACHE, Unusable, as_root, run, say

PACKAGES = {"dockerd": "docker.io", "iptables": "iptables"}
START_SECONDS = 60
STOP_SECONDS = 30


def answers():
    return shutil.which("docker") is not None and subprocess.run(
        ["docker", "info"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ).returncode == 0


@contextlib.contextmanager
def running():
    """An engine that answers. One that this starts is stopped again."""
    if answers():
        yield
        return
    install()
    process = start()
    try:
        yield
    finally:
        stop(process)


def install():
    # Debian keeps them in sbin, which a user's PATH does not have.
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    missing = [package for program, package in PACKAGES.items() if shutil.which(program, path=path) is None]
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise Unusable(f"This is not Debian: please install what corresponds to {' '.join(missing)}, or start a Docker engine")
    say(f"Installing from Debian: {' '.join(missing)}")
    quiet = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q"]
    run(as_root([*quiet, "update"]), "apt-get update")
    run(as_root([*quiet, "install", "-y", "--no-install-recommends", *missing]), "apt-get install")


def start():
    say("Starting a Docker engine")
    OWN_CACHE.mkdir(parents=True, exist_ok=True)
    log = OWN_CACHE / "dockerd.log"
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    command = as_root(["env", f"PATH={path}", "dockerd", "--data-root", str(OWN_CACHE / "docker")])
    with open(log, "wb") as output:
        # In a session of its own: Ctrl-C is for us, and we still need the engine to clean up.
        process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if answers():
            return process
        if process.poll() is not None:
            break
        time.sleep(0.5)
    stop(process)
    last = log.read_text(errors="replace").strip().splitlines()[-1:]
    raise Unusable(f"No Docker engine can be started here (see {log}): {''.join(last)}")


def stop(process):
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        print(f"   the Docker engine (process {process.pid}) does not stop", flush=True)


def remove_containers(namespaces):
    """Removes what interrupted tests left, of these packages of the suite only."""
    for namespace in namespaces:
        label = f"label=complement_pkg={namespace}"
        for listing, remove in (
            (["docker", "ps", "-aq", "--filter", label], ["docker", "rm", "-f"]),
            (["docker", "network", "ls", "-q", "--filter", label], ["docker", "network", "rm"]),
            (["docker", "image", "ls", "-q", "--filter", label], ["docker", "image", "rm", "-f"]),
        ):
            found = sorted(set(run(listing, "docker").split()))
            if found:
                run([*remove, *found], "docker")
