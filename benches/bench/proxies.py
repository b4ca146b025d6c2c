"""The proxies under test, the origin, and how each is started."""
import json
import os
import socket
import subprocess
from pathlib import Path

from .machine import PROXY_CORE, Fault, fetch, free_port, tail, wait_until

BODY_BYTES = 1024


class Proxy:
    """One proxy under test: how it is started and how it is told that it carries requests."""

    name, absolute_form, core = "", False, PROXY_CORE

    def __init__(self, bench):
        self.bench, self.port, self.child = bench, free_port(), None
        self.folder = bench.folder / self.name
        self.folder.mkdir()
        os.chmod(self.folder, 0o777)

    def file(self, name, text):
        path = self.folder / name
        path.write_text(text)
        return path

    def run(self, command):
        self.child = self.bench.start(self.name, self.core, command)

    def carries(self):
        if self.child.poll() is not None:
            raise Fault(f"{self.name} ended with {self.child.returncode} while starting: {self.complaint()}")
        via = self.port if self.absolute_form else None
        return fetch(self.bench.target if via else self.port, via) == BODY_BYTES

    def tunnel(self, port):
        """A connection through this proxy to a port of this machine."""
        stream = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        stream.sendall(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        head = b""
        # Nothing follows the head until we ask for it.
        while not head.endswith(b"\r\n\r\n"):
            head += stream.recv(4096) or raise_fault(f"{self.name} closed instead of answering CONNECT: {self.complaint()}")
        if head.split()[1] != b"200":
            raise Fault(f"{self.name} answered CONNECT with {head.decode(errors='replace').splitlines()[0]}")
        return stream

    def complaint(self):
        return tail(self.bench.folder / f"{self.name}.out")


class HAProxy(Proxy):
    name, options, threads = "haproxy", "", 1

    def launch(self):
        self.tunnel_port = free_port()
        # maxconn 9900: with less, its rule on the share of descriptors in use (tune.pool-high-fd-ratio) stops it from
        # reusing server connections at 1,024 clients, and it would be measured at three times its cost.
        self.run(["haproxy", "-db", "-f", self.file("haproxy.cfg", f"""
global
    nbthread {self.threads}
    maxconn {1000 if self.bench.options.mode in ("tunnels", "bodies") else 9900}
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    http-reuse always
    {self.options}
frontend clients
    bind 127.0.0.1:{self.port}
    default_backend origin
backend origin
    server origin 127.0.0.1:{self.bench.target}
listen tunnels
    mode tcp
    bind 127.0.0.1:{self.tunnel_port}
    server source 127.0.0.1:{self.bench.source}
""")])

    def tunnel(self, port):
        return socket.create_connection(("127.0.0.1", self.tunnel_port), timeout=10)


class HAProxySplice(HAProxy):
    """The same, told to splice whatever it relays."""

    name, options = "haproxy-splice", "option splice-request\n    option splice-response"


class HAProxyTwo(HAProxy):
    """With two threads: what a second core costs a proxy here that is not ours."""

    name, threads, core = "haproxy-2", 2, "0-1"


class Nginx(Proxy):
    name = "nginx"

    def launch(self):
        self.run(nginx_command(self.folder, nginx_config(f"""
    upstream origin {{
        server 127.0.0.1:{self.bench.target};
        keepalive 2048;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{self.port} backlog=4096;
        location / {{
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
        }}
    }}""")))


class Floor(Proxy):
    """A relay that does nothing for a request (`floor.rs`): what the kernel's TCP costs any proxy here."""

    name, absolute_form = "floor", True

    def launch(self):
        done = subprocess.run(["cargo", "bench", "--quiet", "--bench", "floor", "--no-run", "--message-format=json"],
                              capture_output=True, text=True, cwd=self.bench.home.parent)
        made = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        program = next((part["executable"] for part in made if part.get("target", {}).get("name") == "floor"), None)
        if done.returncode != 0 or not program:
            raise Fault(f"cargo cannot build benches/floor.rs: {done.stderr.strip()[-500:]}")
        self.run([program, str(self.port), str(self.bench.target)])


class Squid(Proxy):
    name, absolute_form = "squid", True

    def launch(self):
        self.run(["squid", "-N", "-f", self.file("squid.conf", f"""
http_port 127.0.0.1:{self.port}
http_access allow all
cache deny all
access_log none
cache_log {self.folder}/cache.log
cache_store_log none
cache_mem 8 MB
coredump_dir {self.folder}
pid_filename {self.folder}/squid.pid
netdb_filename none
pinger_enable off
max_filedescriptors 16384
shutdown_lifetime 0 seconds
visible_hostname bench
""")])

    def complaint(self):
        return tail(self.folder / "cache.log") or super().complaint()


class Tidegate(Proxy):
    """A slave, as it carries traffic in a site: every request is decided by a rule, stands in extended.log, and is shipped
    to a master, which runs on the load's core as it would run on a machine of its own."""

    name, absolute_form, cores = "tidegate", True, 1

    def binary(self):
        return self.bench.options.binary

    def launch(self):
        self.key = self.folder / "activation.key"
        master = TidegateNode(self, "master", self.bench.load_core, free_port(), ROLE="master")
        master.ask("activation-key", "new", "-o", self.key)
        master.launch()
        master.apply_policy()
        more = {"MASTER_IP": "127.0.0.1", "MASTER_PORT": master.portal, "CORES": self.cores}
        self.node = TidegateNode(self, self.name, self.core, self.port, **more)
        self.child = self.node.launch()

    def complaint(self):
        return self.node.complaint()


class Before(Tidegate):
    """Another build of Tidegate, beside the one under test in the same rounds."""

    name = "before"

    def binary(self):
        return self.bench.options.against


class TidegateTwo(Tidegate):
    """With two data cores."""

    name, cores, core = "tidegate-2", 2, "0-1"


class Standalone(Tidegate):
    """The same in one process: it pays for its store of records, too."""

    name = "standalone"

    def launch(self):
        self.key = self.folder / "activation.key"
        self.node = TidegateNode(self, self.name, self.core, self.port, ROLE="standalone")
        self.node.ask("activation-key", "new", "-o", self.key)
        self.child = self.node.launch()
        self.node.apply_policy()


class TidegateNode:
    """One Tidegate process and its folders."""

    def __init__(self, proxy, name, core, port, **params):
        self.bench, self.name, self.core, self.portal = proxy.bench, name, core, free_port()
        self.binary = Path(proxy.binary()).resolve()
        if not self.binary.is_file():
            raise Fault(f"there is no {self.binary}: build it with `cargo build --release`, or name another with --binary or --against")
        folder = proxy.folder / name
        state, logs, run = (folder / kind for kind in ("state", "log", "run"))
        for directory in (folder, state, logs, run):
            directory.mkdir(mode=0o700)
        self.control, self.policy, self.config = run / "control.sock", folder / "policy.toml", folder / "startup.ini"
        params = {
            "NODE_NAME": name, "CORES": 1, "LISTEN_IP": "127.0.0.1", "LISTEN_PORT": port, "PORTAL_IP": "127.0.0.1",
            "PORTAL_PORT": self.portal, "STATE_DIR": state, "LOG_DIR": logs, "RUN_DIR": run, "LISTS_DIR": folder,
            "ACTIVATION_KEY_FILE": proxy.key,
            # As many from one address as the bench opens, and as silent as it needs them.
            "MAX_CONNECTIONS_PER_CLIENT": 0, "HEAD_TIME": 60, "IDLE_TIME": 60,
        } | params
        self.config.write_text("".join(f'{name}="{value}"\n' for name, value in params.items()))

    def launch(self):
        # Latencies are taken by the load, whose core the master would share: it may have only what the load leaves.
        aside = ["chrt", "--idle", "0"] if self.name == "master" and self.bench.options.mode == "latency" else []
        self.child = self.bench.start(self.name, self.core, [*aside, self.binary, "run", "--config", self.config])
        wait_until(f"the control socket of the {self.name} to answer", self.answers, self.complaint)
        return self.child

    def apply_policy(self):
        self.policy.write_text(policy_document(self.bench, self.policy.parent))
        self.ask("policy", "apply", self.policy, control=True)

    def answers(self):
        if self.child.poll() is not None:
            raise Fault(f"the {self.name} ended with {self.child.returncode} while starting: {self.complaint()}")
        return self.control.exists() and self.try_ask("status", "--json", control=True).returncode == 0

    def ask(self, *words, control=False):
        done = self.try_ask(*words, control=control)
        if done.returncode != 0:
            raise Fault(f"`tidegate {' '.join(map(str, words))}` ended with {done.returncode}: "
                        f"{(done.stderr.strip() or done.stdout.strip())}; the {self.name}: {self.complaint()}")
        return done.stdout

    def try_ask(self, *words, control=False):
        command = [self.binary, *words, *(["--control", self.control] if control else [])]
        return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60)

    def complaint(self):
        return tail(self.bench.folder / f"{self.name}.out")


def policy_document(bench, folder):
    """The policy; with --rules so many more rules, with --hosts a category of so many hosts. None of those holds, so each request
    passes them all."""
    document = TIDEGATE_POLICY.format(origin=bench.origin, target=bench.target, source=bench.source)
    if bench.options.hosts:
        with open(folder / "hosts.txt", "w") as file:
            file.writelines(f"www{number}.example-{number % 977}.test\n" for number in range(bench.options.hosts))
        document += '[[categories]]\nname = "Big"\nfiles = ["hosts.txt"]\n'
    kinds = min(bench.options.rules, 250)
    for number in range(kinds):
        document += f'[[request_types]]\nname = "type {number}"\n{KINDS[number % len(KINDS)].format(n=number)}\n'
    for number in range(bench.options.rules):
        asks = f'request_types = ["type {number % kinds}"]'
        if bench.options.hosts and number % 4 == 1:
            asks = f'categories = ["Big"]\n{asks}'
        document += f'[[access_profiles]]\nname = "rule {number}"\n{asks}\naction = "DENY"\n'
    return document + EVERYBODY


# What rules ask for: of each kind some.
KINDS = (
    'path_prefixes = ["/assets/section-{n}/", "/private-{n}"]',
    'hosts = ["www{n}.test", "ftp{n}.test"]\nmethods = ["GET", "POST"]',
    'host_suffixes = ["s{n}.example.com"]\nschemes = ["http"]',
    'methods = ["PUT"]\npath_prefixes = ["/upload-{n}"]',
)

# What a small office might have: every request walks these sections before it is let through.
TIDEGATE_POLICY = """
[policy]
name = "bench"

[network]
allow_destinations = ["127.0.0.1/32:{origin}", "127.0.0.1/32:{target}", "127.0.0.1/32:{source}"]
connect_ports = [443, {source}]

[access_restriction]
default = "deny"

[[access_restriction.allow]]
comment = "the load"
addresses = ["127.0.0.0/8"]
rights = ["PROXY", "CONNECT", "CLUSTER"]
user_groups = ["LOCAL"]

[[request_types]]
name = "social"
path_prefixes = ["/social"]

[[access_profiles]]
name = "Block social"
request_types = ["social"]
action = "DENY"
reason = "social sites are off"

"""

EVERYBODY = """
[[access_profiles]]
name = "Everybody"
user_groups = ["LOCAL"]
add_profiles = ["ORDINARY"]
action = "ALLOW"
"""

PROXIES = {proxy.name: proxy for proxy in (Tidegate, Before, TidegateTwo, Standalone, HAProxy, HAProxyTwo, HAProxySplice, Nginx, Squid, Floor)}


def nginx_command(folder, config):
    folder.mkdir(exist_ok=True)
    os.chmod(folder, 0o777)
    (folder / "nginx.conf").write_text(config.replace("FOLDER", str(folder)))
    return ["nginx", "-p", folder, "-e", "stderr", "-c", folder / "nginx.conf"]


def nginx_config(http):
    temporary = "\n".join(f"    {kind}_temp_path FOLDER/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    return f"""
daemon off;
worker_processes 1;
worker_rlimit_nofile 16384;
pid FOLDER/nginx.pid;
error_log stderr error;
events {{ worker_connections 9900; }}
http {{
    access_log off;
    keepalive_timeout 600s;
    keepalive_requests 1000000000;
{temporary}
{http}
}}
"""


def origin_config(port):
    return nginx_config(f"""
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{ default_type text/plain; return 200 "{'x' * BODY_BYTES}"; }}
    }}""")
