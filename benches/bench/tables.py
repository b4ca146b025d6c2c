"""What is said: the tables, medians of rounds with the smallest and the largest."""
import statistics

from . import bytes as in_bytes
from .machine import PROXY_CORE
from .proxies import BODY_BYTES, PROXIES, Tidegate

BASELINE = "haproxy"
# Above this much foreign work on the proxy's core, figures are worth less and the table says so.
CONTENDED_CORES = 0.12


def spread(values, digits=1):
    if not values:
        return "-"
    return f"{statistics.median(values):.{digits}f} [{min(values):.{digits}f}-{max(values):.{digits}f}]"


def print_requests(options, windows):
    kind = "a new client connection per request" if options.close else "keep-alive"
    policy = f"; {options.rules:,} rules and {options.hosts:,} hosts" if options.rules or options.hosts else ""
    print(f"\n{BODY_BYTES // 1024} KiB, {kind}{policy}, {options.rounds} rounds of {options.seconds} s, medians [min-max]\n")
    base = "the same with one core" if options.cores == 2 else BASELINE
    more = f" req/s x {base} |" if options.cores == 2 else ""
    print(f"| proxy | connections | CPU us/request | x {base} | req/s |{more} p50 | p99 | RSS MiB | other on core 0 | bad |")
    print("|---" * (11 if more else 10) + "|")
    for connections in options.connections:
        same = [window for window in windows if window["connections"] == connections]
        for name in options.proxies:
            mine = [window for window in same if window["proxy"] == name]
            base = name.removesuffix("-2") if options.cores == 2 else BASELINE
            rates = against(mine, same, base, "rps") if more else None
            print(row(name, connections, mine, against(mine, same, base, "cpu_us"), rates))
    print_threads(windows)
    print_warnings(windows)


def print_tunnels(options, windows):
    print(f"\nCONNECT tunnels, {options.rounds} rounds, medians [min-max]: one stream of {options.gib:g} GiB; "
          f"{in_bytes.BURST_CONNECTIONS} connections with {in_bytes.bursts_each(options.gib)} answers of {in_bytes.BURST_BYTES // 1024} KiB each\n")
    print_bytes(options, windows)


def print_bodies(options, windows):
    print(f"\nBodies of {options.bodies} MiB with Content-Length, {options.gib:g} GiB a window, {options.rounds} rounds, "
          "medians [min-max]\n")
    print_bytes(options, windows)


def print_bytes(options, windows):
    print(f"| proxy | load | CPU s/GiB | x best {BASELINE} | GiB/s | RSS MiB | other on core 0 |")
    print("|---|---|---|---|---|---|---|")
    for kind in dict.fromkeys(window["kind"] for window in windows):
        same = [window for window in windows if window["kind"] == kind]
        base = best_baseline(same)
        for name in options.proxies:
            mine = [window for window in same if window["proxy"] == name]
            cells = [name, kind, spread([w["cpu_s_gib"] for w in mine], 3), spread(against(mine, same, base, "cpu_s_gib"), 2),
                     spread([w["gib_s"] for w in mine], 2), spread([w["rss_mib"] for w in mine], 0),
                     spread([w["other"] for w in mine], 2)]
            print("| " + " | ".join(cells) + " |")
    print_warnings(windows)


def best_baseline(windows):
    """Which of the baseline's modes took least in these windows."""
    modes = {window["proxy"] for window in windows if window["proxy"].startswith(BASELINE)}
    cost = {mode: statistics.median(w["cpu_s_gib"] for w in windows if w["proxy"] == mode) for mode in modes}
    return min(cost, key=cost.get, default=BASELINE)


def print_latency(options, windows):
    print(f"\nLatency at a constant rate, {options.rounds} rounds of {options.seconds} s, microseconds from the moment a request "
          "was due to the end of its answer, medians [min-max]\n")
    print(f"| proxy | connections | requests/s | p50 | p90 | p99 | p99 x {BASELINE} | p99.9 | other on core 0 |")
    print("|---|---|---|---|---|---|---|---|---|")
    for connections in options.connections:
        same = [window for window in windows if window["connections"] == connections]
        for name in options.proxies:
            mine = [window for window in same if window["proxy"] == name]
            p50, p90, p99, p999 = (spread([w[key] for w in mine], 0) for key in ("p50_us", "p90_us", "p99_us", "p999_us"))
            ratio = spread(against(mine, same, BASELINE, "p99_us"), 2)
            cells = [name, connections, mine[0]["rate"], p50, p90, p99, ratio, p999, spread([w["other"] for w in mine], 2)]
            print("| " + " | ".join(map(str, cells)) + " |")
    print_warnings(windows)


def print_idle(options, windows):
    print(f"\n{options.idle:,} idle client connections, memory of the process after {options.silence:g} s of silence\n")
    print("| proxy | MiB before | KiB for each, fresh | KiB for each, after one request |\n|---|---|---|---|")
    for window in windows:
        print("| {proxy} | {before_mib:.0f} | {fresh_kib:.2f} | {used_kib:.2f} |".format(**window))


def row(name, connections, mine, cost, rates):
    middle = sorted(mine, key=lambda window: window["cpu_us"])[len(mine) // 2]
    cells = [
        name, connections, spread([w["cpu_us"] for w in mine]), spread(cost, 2), spread([w["rps"] for w in mine], 0),
        *([] if rates is None else [spread(rates, 2)]), middle["p50"], middle["p99"], f"{middle['rss_mib']:.0f}",
        spread([w["other"] for w in mine], 2), sum(w["bad"] for w in mine),
    ]
    return "| " + " | ".join(map(str, cells)) + " |"


def against(mine, same, base, figure):
    """Ratios to the baseline of the same round: what disturbed one disturbed the other."""
    bases = {window["round"]: window[figure] for window in same if window["proxy"] == base}
    return [window[figure] / bases[window["round"]] for window in mine if bases.get(window["round"])]


def print_threads(windows):
    """Where Tidegate's time goes: the data core, and what follows every record."""
    print("\n| Tidegate's threads | connections | thread | CPU us/request |\n|---|---|---|---|")
    ours = {(window["proxy"], window["connections"]) for window in windows if issubclass(PROXIES[window["proxy"]], Tidegate)}
    for proxy, connections in sorted(ours):
        mine = [window for window in windows if (window["proxy"], window["connections"]) == (proxy, connections)]
        for name in sorted({name for window in mine for name in window["threads_us"]}):
            print(f"| {proxy} | {connections} | {name} | {spread([window['threads_us'].get(name, 0.0) for window in mine], 2)} |")
        late = spread([window["late_us"] for window in mine], 2)
        print(f"| {proxy} | {connections} | (all, after the load had ended) | {late} |")


def print_warnings(windows):
    contended = sum(window["other"] > CONTENDED_CORES for window in windows)
    if contended:
        print(f"\n{contended} of {len(windows)} windows had more than {CONTENDED_CORES} cores of foreign work on core 0: "
              "ratios still hold roughly, absolute figures do not.")
    for name in sorted({(w["proxy"], thread) for w in windows for thread in w["strayed"]}):
        print(f"\n{name[0]}: thread {name[1]} was not confined to core {PROXY_CORE}; its time is counted.")
    if any(window["bad"] for window in windows):
        print("\nSome requests failed: these figures are not worth comparing until they do not.")
