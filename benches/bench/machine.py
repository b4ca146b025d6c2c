"""What the bench asks of the machine: ports, patience, and what the kernel knows of processes and cores."""
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

# A third and further cores are for the load: data cores get core 0, and core 1 if there are to be two (see `load_cores`).
PROXY_CORE, LOAD_CORE = "0", "1"
START_SECONDS_MAX = 20
DESCRIPTORS = 20_000
TOOLS = {"wrk": "wrk", "haproxy": "haproxy", "nginx": "nginx-light", "squid": "squid", "taskset": "util-linux"}
GIB = 2**30


class Fault(Exception):
    """What was being done, what happened, what to do."""


def say(words):
    print(words, file=sys.stderr, flush=True)


def install_missing(proxies):
    wanted = [tool for tool in TOOLS if tool in ("wrk", "nginx", "taskset") or any(name.startswith(tool) for name in proxies)]
    missing = [tool for tool in wanted if not shutil.which(tool)]
    if not missing:
        return
    packages = sorted({TOOLS[tool] for tool in missing})
    remedy = f"apt-get install {' '.join(packages)}"
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise Fault(f"{', '.join(missing)} not found: run `{remedy}` as root")
    say(f"installing {', '.join(packages)}")
    # Debian starts what it installs; the bench wants the programs alone.
    guard = Path("/usr/sbin/policy-rc.d")
    ours = not guard.exists()
    if ours:
        guard.write_text("#!/bin/sh\nexit 101\n")
        guard.chmod(0o755)
    try:
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["apt-get", "update", "-q"], ["apt-get", "install", "-qy", "--no-install-recommends", *packages]):
            done = subprocess.run(command, env=quiet, capture_output=True, text=True)
            if done.returncode != 0:
                raise Fault(f"`{' '.join(command)}` failed: {done.stderr.strip()[-500:]}")
    finally:
        if ours:
            guard.unlink()


def allow_descriptors():
    """HAProxy alone wants two for each of its 9,900 connections."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < DESCRIPTORS:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
            return
        except (ValueError, OSError):
            raise Fault(f"only {most} open files are allowed here, {DESCRIPTORS} are needed: raise the hard limit") from None
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, most))


def load_cores(data_cores):
    """Where load and origin run beside so many data cores: on the others, or on the last if all are data cores."""
    here = sorted(os.sched_getaffinity(0))
    return ",".join(map(str, here[data_cores:] or here[-1:]))


def free_port():
    # SO_REUSEADDR is not set on purpose: a port that somebody else could still take is not free.
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def fetch(port, via=None):
    """The length of what the origin answers, or None if it does not."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": f"http://127.0.0.1:{via}"} if via else {}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/", timeout=2) as answer:
            return len(answer.read()) if answer.status == 200 else None
    except (urllib.error.URLError, OSError, ValueError):
        return None


def pinned(core, command):
    return ["taskset", "-c", core, *map(str, command)]


def raise_fault(words):
    raise Fault(words)


def wait_until(what, ready, complaint=lambda: ""):
    deadline = time.monotonic() + START_SECONDS_MAX
    while not ready():
        if time.monotonic() > deadline:
            raise Fault(f"waited {START_SECONDS_MAX} s for {what}, in vain. {complaint()}".rstrip())
        time.sleep(0.05)


def tail(path):
    try:
        return " | ".join(path.read_text(errors="replace").strip().splitlines()[-5:]) or f"{path.name} is empty"
    except FileNotFoundError:
        return ""


def tree(pid):
    """A process and all that descend from it."""
    found = [pid]
    for parent in found:
        try:
            for task in os.listdir(f"/proc/{parent}/task"):
                found += map(int, Path(f"/proc/{parent}/task/{task}/children").read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found


def tree_cpu(pid):
    """Seconds on a CPU, kernel work in the process's name included, by name of thread."""
    spent = {}
    for process in tree(pid):
        for task in Path(f"/proc/{process}/task").glob("*"):
            try:
                name = (task / "comm").read_text().strip()
                spent[name] = spent.get(name, 0.0) + int((task / "schedstat").read_text().split()[0]) / 1e9
            except (FileNotFoundError, ProcessLookupError):
                pass
    return spent


def total(spent):
    return sum(spent.values())


def settle(pid):
    """Waits until the proxy has done what it put off (records, mostly): that work belongs to the requests, too."""
    deadline, before, quiet = time.monotonic() + 60, tree_cpu(pid), 0
    while True:
        time.sleep(0.25)
        now = tree_cpu(pid)
        # Twice in a row: a slave that waits for its master to store a batch is quiet, too.
        quiet = quiet + 1 if total(now) - total(before) < 0.005 else 0
        if quiet == 2 or time.monotonic() > deadline:
            return now
        before = now


def core_busy(core):
    for line in Path("/proc/stat").read_text().splitlines():
        words = line.split()
        if words[0] == f"cpu{core}":
            user, nice, system, _idle, _wait, irq, softirq = map(int, words[1:8])
            return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
    raise Fault(f"/proc/stat knows no core {core}")


def tree_rss_mib(pid):
    pages = 0
    for process in tree(pid):
        try:
            pages += int(Path(f"/proc/{process}/statm").read_text().split()[1])
        except (FileNotFoundError, ProcessLookupError):
            pass
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def strayed(pid, core=PROXY_CORE):
    """Threads that set an affinity of their own and may have run beside the proxy's core; their CPU time counts all the same."""
    names = set()
    for process in tree(pid):
        for task in Path(f"/proc/{process}/task").glob("*"):
            try:
                allowed = re.search(r"Cpus_allowed_list:\s*(\S+)", (task / "status").read_text())
                if allowed and allowed[1] != core:
                    names.add((task / "comm").read_text().strip())
            except (FileNotFoundError, ProcessLookupError):
                pass
    return sorted(names)
