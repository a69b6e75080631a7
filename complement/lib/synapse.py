"""An image of Synapse from the wheels of PyPI, to be the other end of federation. Built here, never published.

Synapse is AGPL: it runs as a server of its own in its own container, and nothing of it is part of this repository.
"""

import io
import json
import os
import pathlib
import subprocess
import tarfile

from common import CACHE, HERE, ROOT, Unusable, run, say
from image import NAME_SERVICE, libraries

IMAGE = "hearth-complement-synapse:latest"
HOME = CACHE / "synapse"
# Parts of Python that no server needs.
LEFT_OUT = {"test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "pip", "site-packages"}
WHERE = """
import json, os, sys, sysconfig
print(json.dumps([os.path.realpath(sys.executable), sys.base_prefix, sysconfig.get_path("stdlib")]))
"""


def python():
    found = HOME / "bin" / "python"
    if not found.exists():
        raise Unusable(f"Synapse is not installed in {HOME}: run .ci/setup tests")
    return found


def files(tree, left_out):
    for directory, below, names in os.walk(tree):
        below[:] = sorted(name for name in below if name not in left_out and not name.startswith("config-"))
        for name in sorted(names):
            yield pathlib.Path(directory, name)


def linked(paths):
    """What the program and all modules in C need."""
    found = set()
    for path in paths:
        listing = subprocess.run(["ldd", str(path)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout.decode()
        if "statically linked" not in listing and "not a dynamic executable" not in listing:
            found.update(library for library in libraries(listing) if not library.startswith(str(HOME)))
    for home in {str(pathlib.Path(path).parent) for path in found if "/libc.so" in path}:
        found.update(str(pathlib.Path(home, name)) for name in NAME_SERVICE if pathlib.Path(home, name).exists())
    return sorted(found)


def everything():
    """Pairs of a path in the image and the file on this machine."""
    interpreter, base, library = json.loads(run([str(python()), "-c", WHERE], "python"))
    own = [*files(pathlib.Path(library), LEFT_OUT), *files(HOME, {"pip"})]
    modules = [path for path in own if path.suffix == ".so" or ".so." in path.name]
    for path in [pathlib.Path(interpreter), *own]:
        yield str(path).lstrip("/"), path
    for path in linked([pathlib.Path(interpreter), *modules]):
        yield path.lstrip("/"), pathlib.Path(path)
    # Python looks for itself where the environment's links lead.
    for name in ("python3", "python"):
        path = pathlib.Path(base, "bin", name)
        if path.exists():
            yield str(path).lstrip("/"), path
    yield "start.py", HERE / "synapse_start.py"
    yield "synapse_config.py", ROOT / "benches" / "synapse_config.py"


def context(out):
    """Writes the build's context as a tar."""
    with tarfile.open(fileobj=out, mode="w") as tar:
        def add(name, data, mode=0o644, mtime=0):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(data), mode, mtime
            tar.addfile(entry, io.BytesIO(data))

        def directory(name, mode):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)

        start = json.dumps([str(python()), "/start.py"])
        add("Dockerfile", f"FROM scratch\nCOPY root/ /\nENTRYPOINT {start}\nEXPOSE 8008 8448\n".encode())
        directory("root", 0o755)
        directory("root/tmp", 0o1777)
        directory("root/data", 0o700)
        add("root/etc/nsswitch.conf", b"hosts: files dns\n")
        # Twisted asks for the services that these files list.
        add("root/etc/passwd", b"root:x:0:0:root:/:/\n")
        for name, source in everything():
            mode = 0o755 if os.access(source, os.X_OK) else 0o644
            # Python compiles anew what is not as old as when it was compiled: seconds for each container.
            add(f"root/{name}", source.read_bytes(), mode, int(source.stat().st_mtime))


def build(scratch):
    say("Building the image of Synapse")
    made = scratch / "synapse.tar"
    with open(made, "wb") as out:
        context(out)
    environment = {**os.environ, "DOCKER_BUILDKIT": "0"}
    with open(made, "rb") as given:
        run(["docker", "build", "-q", "-t", IMAGE, "-"], "docker build", stdin=given, env=environment)
    made.unlink()


def remove():
    subprocess.run(["docker", "image", "rm", IMAGE], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
