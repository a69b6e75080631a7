"""The image: the release binary, every library that ldd names, and what looking up names needs."""

import io
import os
import pathlib
import re
import subprocess
import tarfile

from common import HERE, IMAGE, ROOT, TARGET, Unusable, run, say

# Loaded by name at run time, so that ldd does not tell. Newer C libraries have them built in.
NAME_SERVICE = ["libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2"]


def build_binary():
    say("Building the server")
    command = ["cargo", "build", "--release", "--bin", "hearth"]
    environment = {**os.environ, "CARGO_TARGET_DIR": str(TARGET)}
    if subprocess.run(command, cwd=ROOT, env=environment).returncode != 0:
        raise Unusable("the server does not compile")
    return TARGET / "release" / "hearth"


def libraries(listing):
    """The paths in what ldd printed."""
    lines = [line.strip() for line in listing.splitlines()]
    lost = [line for line in lines if line.endswith("=> not found")]
    if lost:
        raise Unusable(f"ldd: {lost[0]}")
    return sorted({match[1] for line in lines if (match := re.search(r"(?:^|=> )(/\S+) \(0x", line))})


def files(binary):
    """Pairs of a path in the image and the file on this machine."""
    linked = libraries(run(["ldd", str(binary)], "ldd"))
    yield "usr/bin/hearth", binary
    for path in linked:
        yield path.lstrip("/"), pathlib.Path(path)
    homes = {str(pathlib.Path(path).parent) for path in linked if "/libc.so" in path}
    named = {pathlib.Path(path).name for path in linked}
    for home in homes:
        for name in NAME_SERVICE:
            path = pathlib.Path(home, name)
            if name not in named and path.exists():
                yield str(path).lstrip("/"), path


def context(binary, stripped):
    """The build's context as a tar. The same binary gives the same bytes, so that the engine's cache holds."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        def add(name, data, mode):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), mode
            tar.addfile(entry, io.BytesIO(data))

        def directory(name, mode):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)

        add("Dockerfile", (HERE / "Dockerfile").read_bytes(), 0o644)
        directory("root", 0o755)
        directory("root/tmp", 0o1777)
        directory("root/data", 0o700)
        # The suite's own servers are only in the container's hosts file.
        add("root/etc/nsswitch.conf", b"hosts: files dns\n", 0o644)
        for name, source in files(binary):
            add(f"root/{name}", (stripped if source == binary else source).read_bytes(), 0o755)
    return buffer.getvalue()


def build(binary, scratch):
    """Builds the image from `binary`; `scratch` is a directory for what is in between."""
    say("Building the image")
    stripped = scratch / "hearth"
    run(["strip", "--strip-debug", "-o", str(stripped), str(binary)], "strip")
    # The engine of Debian 12 has no BuildKit.
    environment = {**os.environ, "DOCKER_BUILDKIT": "0"}
    before = image_id()
    run(["docker", "build", "-q", "-t", IMAGE, "-"], "docker build", input=context(binary, stripped), env=environment)
    if before and before != image_id():
        # Layers of the image before, unless somebody uses them.
        subprocess.run(["docker", "image", "rm", before], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def image_id():
    return run(["docker", "image", "ls", "-q", "--no-trunc", IMAGE], "docker").strip()


def remove():
    subprocess.run(["docker", "image", "rm", IMAGE], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
