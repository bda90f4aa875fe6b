"""What a run needs: Debian's packages, and the binaries of this repository."""

import os
import subprocess

from hosts import Failed, run
from postgresql import PROGRAMS

ROOT = os.path.realpath(os.path.join(os.path.dirname(os.path.realpath(__file__)), "../.."))
# A program of each package that is needed.
PACKAGES = {
    f"{PROGRAMS}/postgres": "postgresql-15", "/usr/sbin/mariadbd": "mariadb-server",
    "/usr/bin/sysbench": "sysbench", "/usr/sbin/glusterd": "glusterfs-server", "/usr/sbin/ip": "iproute2",
    "/usr/sbin/glusterfs": "glusterfs-client", "/usr/bin/ping": "iputils-ping", "/usr/bin/strace": "strace",
    "/usr/sbin/mkfs.ext4": "e2fsprogs", "/usr/bin/setpriv": "util-linux",
}
TOOLS = ("duolog", "slow-disk", "distant-link")


def install():
    """Debian's packages that are missing; no server starts by itself."""
    missing = sorted({package for program, package in PACKAGES.items() if not os.path.exists(program)})
    if not missing:
        return
    print("installing:", " ".join(missing), flush=True)
    policy = "/usr/sbin/policy-rc.d"
    own = not os.path.exists(policy)
    if own:
        with open(policy, "w") as file:
            file.write("#!/bin/sh\nexit 101\n")
        os.chmod(policy, 0o755)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        run(["apt-get", "update", "-qq"], 300, env=environment)
        run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing], 900, env=environment)
    finally:
        if own:
            os.unlink(policy)


def tools_of(at):
    """The binaries, built where they are not given. At the usual priority, whatever that of the measurement."""
    if not at:
        at = os.path.join(ROOT, "target/release")
        subprocess.run([
            "chrt", "-o", "0", "cargo", "build", "--release", "--locked", "-q", "-p", "duolog", "-p", "duolog-tests",
            *(it for name in TOOLS for it in ("--bin", name))], cwd=ROOT, check=True)
    tools = {name: os.path.join(os.path.abspath(at), name) for name in TOOLS}
    for path in tools.values():
        if not os.path.exists(path):
            raise Failed(f"{path} is missing: build it with cargo build --release -p duolog -p duolog-tests --bins")
    return tools
