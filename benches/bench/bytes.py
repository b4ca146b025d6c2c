"""The loads that are counted in bytes: tunnels and large bodies."""
import selectors
import socket
import threading

from . import source
from .machine import GIB, Fault, raise_fault

BURST_BYTES, BURST_CONNECTIONS = 64 * 1024, 64
PARALLEL = 16


def tunnel_loads(options):
    return {
        "one stream": lambda proxy: stream(proxy, int(options.gib * GIB)),
        "bursts": lambda proxy: bursts(proxy, bursts_each(options.gib)),
    }


def bursts_each(gib):
    """How many each connection carries, so that all together are as much as the one stream."""
    return max(1, int(gib * GIB) // (BURST_CONNECTIONS * BURST_BYTES))


def body_loads(options):
    size = options.bodies * 2**20
    count = max(1, int(options.gib * GIB) // size)
    return {
        "download": lambda proxy: bodies(proxy, download, size, count),
        f"{PARALLEL} downloads": lambda proxy: side_by_side(proxy, download, size, count),
        "upload": lambda proxy: bodies(proxy, upload, size, count),
    }


def stream(proxy, wanted):
    with proxy.tunnel(proxy.bench.source) as tunnel:
        source.ask(tunnel, wanted)
        source.receive(tunnel, wanted)
    return wanted


def bursts(proxy, each):
    with selectors.DefaultSelector() as ready:
        for _ in range(BURST_CONNECTIONS):
            tunnel = proxy.tunnel(proxy.bench.source)
            source.ask(tunnel, BURST_BYTES)
            # How many bursts and how many bytes of this one are still to come.
            ready.register(tunnel, selectors.EVENT_READ, [each, BURST_BYTES])
        while ready.get_map():
            for key, _ in ready.select(10) or raise_fault("no byte for ten seconds"):
                take_burst(key, ready)
    return BURST_CONNECTIONS * each * BURST_BYTES


def take_burst(key, ready):
    got = key.fileobj.recv_into(source.ROOM, key.data[1], source.DISCARD)
    if not got:
        raise ConnectionError("closed in the middle of a burst")
    key.data[1] -= got
    if key.data[1]:
        return
    key.data[:] = [key.data[0] - 1, BURST_BYTES]
    if key.data[0]:
        source.ask(key.fileobj, BURST_BYTES)
        return
    ready.unregister(key.fileobj)
    key.fileobj.close()


def bodies(proxy, carry, size, count):
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=20) as client:
        for _ in range(count):
            carry(proxy, client, size)
    return size * count


def side_by_side(proxy, carry, size, count):
    each, carried = max(1, count // PARALLEL), []
    threads = [threading.Thread(target=lambda: carried.append(bodies(proxy, carry, size, each))) for _ in range(PARALLEL)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(carried) != PARALLEL:
        raise Fault(f"{PARALLEL - len(carried)} of {PARALLEL} connections through {proxy.name} failed")
    return sum(carried)


def download(proxy, client, size):
    client.sendall(request(proxy, "GET", size))
    answer, rest = answer_head(client)
    if answer != b"200" or len(rest) > size:
        raise ConnectionError(f"answered {answer.decode()}")
    source.receive(client, size - len(rest))


def upload(proxy, client, size):
    client.sendall(request(proxy, "PUT", size, f"Content-Length: {size}\r\n"))
    source.send(client, size)
    answer, _ = answer_head(client)
    if answer != b"200":
        raise ConnectionError(f"answered {answer.decode()}")


def request(proxy, method, size, more=""):
    host = f"127.0.0.1:{proxy.bench.target}"
    target = f"http://{host}/{size}" if proxy.absolute_form else f"/{size}"
    return f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n".encode()


def answer_head(client):
    head = b""
    while b"\r\n\r\n" not in head:
        if not (more := client.recv(4096)):
            raise ConnectionError(f"closed in the head of an answer: {head!r}")
        head += more
    head, _, rest = head.partition(b"\r\n\r\n")
    return head.split(b" ", 2)[1], rest
