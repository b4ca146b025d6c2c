"""The far end of tunnels and of large bodies, a process of its own on the load's core.

On one port it sends as many bytes as eight bytes of a client ask for; on the other it speaks as much HTTP as the bench needs:
`GET /N` is answered with N bytes, a body that is sent to it is taken and answered with nothing.
"""
import socket
import sys
import threading

CHUNK = 2**20
# On a TCP socket this receives into nothing: the load's core is spared a copy, the proxy's work is the same.
DISCARD = socket.MSG_TRUNC


def serve(tunnels, bodies):
    threading.Thread(target=accept_for_ever, args=(tunnels, as_asked), daemon=True).start()
    accept_for_ever(bodies, as_http)


def accept_for_ever(listener, talk):
    def quietly(stream):
        try:
            with stream:
                stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                talk(stream)
        except ConnectionError:
            pass

    while True:
        threading.Thread(target=quietly, args=(listener.accept()[0],), daemon=True).start()


def as_asked(stream):
    while (asked := stream.recv(8, socket.MSG_WAITALL)) and len(asked) == 8:
        send(stream, int.from_bytes(asked, "big"))


def as_http(stream):
    rest = b""
    while True:
        while b"\r\n\r\n" not in rest:
            if not (more := stream.recv(65536)):
                return
            rest += more
        head, _, rest = rest.partition(b"\r\n\r\n")
        method, path = head.split(b" ", 2)[:2]
        if method == b"GET":
            length = int(path.rpartition(b"/")[2] or b"1024")
            stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length)
            send(stream, length)
        else:
            fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:])
            left = int(fields.get(b"content-length", b"0")) - len(rest)
            rest = b""
            receive(stream, left)
            stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


FILLING = memoryview(bytes(CHUNK))


def send(stream, left):
    while left:
        left -= stream.send(FILLING[:min(left, CHUNK)])


ROOM = memoryview(bytearray(CHUNK))


def receive(stream, left):
    while left:
        got = stream.recv_into(ROOM, min(left, CHUNK), DISCARD)
        if not got:
            raise ConnectionError(f"closed with {left} bytes to come")
        left -= got


def ask(stream, count):
    stream.sendall(count.to_bytes(8, "big"))


if __name__ == "__main__":
    serve(*(socket.socket(fileno=int(number)) for number in sys.argv[1:]))
