"""The loads that are counted in requests: as many as go, so many a second, and none."""
import json
import re
import socket
import subprocess
import time

from .machine import Fault, pinned, tree_rss_mib


def wrk(bench, proxy, connections, seconds):
    script = bench.folder / f"{proxy.name}.lua"
    # Values set here make one request that wrk sends for ever: no Lua runs while measuring.
    lines = [f'wrk.headers["Host"] = "127.0.0.1:{bench.origin}"']
    if proxy.absolute_form:
        lines.append(f'wrk.path = "http://127.0.0.1:{bench.origin}/"')
    if bench.options.close:
        lines.append('wrk.headers["Connection"] = "close"')
    if bench.options.think_ms:
        lines.append(f"function delay() return {bench.options.think_ms} end")
    script.write_text("\n".join(lines) + "\n")
    command = pinned(bench.load_core, ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "--latency", "-s",
                                       script, f"http://127.0.0.1:{proxy.port}/"])
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60)
    if done.returncode != 0:
        raise Fault(f"wrk against {proxy.name} ended with {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
    return read_wrk(done.stdout)


def read_wrk(text):
    def find(pattern, default=None):
        found = re.search(pattern, text)
        if not found and default is None:
            raise Fault(f"wrk said something unexpected:\n{text}")
        return found[1] if found else default

    socket_errors = sum(map(int, re.findall(r"(?:connect|read|write|timeout) (\d+)", text)))
    return {
        "requests": int(find(r"(\d+) requests in")),
        "bad": int(find(r"Non-2xx or 3xx responses: (\d+)", "0")) + socket_errors,
        "p50": find(r"\n\s+50%\s+(\S+)"),
        "p99": find(r"\n\s+99%\s+(\S+)"),
    }


def compile_load(bench):
    """The generator of load at a constant rate: one file, the standard library only."""
    source, program = bench.home / "load.rs", bench.folder / "load"
    try:
        done = subprocess.run(["rustc", "--edition", "2024", "-O", source, "-o", program], capture_output=True, text=True)
    except FileNotFoundError:
        raise Fault("rustc is not to be found: install Rust, with which Tidegate is built, too") from None
    if done.returncode != 0:
        raise Fault(f"rustc cannot compile {source}: {done.stderr.strip()[-500:]}")
    return program


def constant_rate(bench, proxy, connections, rate, seconds):
    host = f"127.0.0.1:{bench.origin}"
    target = f"http://{host}/" if proxy.absolute_form else "/"
    command = [bench.load_program, f"127.0.0.1:{proxy.port}", target, host, rate, connections, seconds]
    done = subprocess.run(pinned(bench.load_core, command), capture_output=True, text=True, timeout=seconds + 60)
    if done.returncode != 0:
        raise Fault(f"the load against {proxy.name} ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return json.loads(done.stdout)


def idle_memory(bench, proxy, count, silence):
    """KiB of the proxy's memory for each connection: fresh ones, and the same after one request each."""
    pid = proxy.child.pid
    before = tree_rss_mib(pid)
    # No address has so many ports that nobody else needs: each opens a few thousand.
    clients = [socket.create_connection(("127.0.0.1", proxy.port), 10, (f"127.0.1.{1 + number // 4000}", 0)) for number in range(count)]
    try:
        time.sleep(silence)
        fresh = tree_rss_mib(pid)
        for client in clients:
            one_request(bench, proxy, client)
        time.sleep(silence)
        used = tree_rss_mib(pid)
        for client in clients:
            client.setblocking(False)
            if has_ended(client):
                raise Fault(f"{proxy.name} closed connections while they were to be idle: its memory says nothing")
    finally:
        for client in clients:
            client.close()
    return {"before_mib": before, "fresh_kib": (fresh - before) * 1024 / count, "used_kib": (used - before) * 1024 / count}


def one_request(bench, proxy, client):
    host = f"127.0.0.1:{bench.origin}"
    client.sendall(f"GET {f'http://{host}/' if proxy.absolute_form else '/'} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    answer, length = b"", None
    while length is None or len(answer) < length:
        if not (more := client.recv(65536)):
            raise Fault(f"{proxy.name} closed the connection in the middle of an answer")
        answer += more
        if length is None and (end := answer.find(b"\r\n\r\n")) >= 0:
            length = end + 4 + int(re.search(rb"(?i)content-length: *(\d+)", answer)[1])


def has_ended(client):
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
