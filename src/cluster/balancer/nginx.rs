//! A whole nginx.conf with a `stream` block. The free nginx asks no health: who is away or drained is `down` here, by what
//! the master knows.

use super::Backend;
use super::Backends;
use super::comment;
use super::title;
use std::fmt::Write;

/// The configuration; clients connect to `listen`, as nginx writes it (`8080`, `10.0.0.5:8080`).
pub fn config(backends: &Backends, listen: &str) -> String {
    let mut out = String::new();
    title(&mut out, backends, "nginx");
    comment(
        &mut out,
        "",
        "Needs the stream module (Debian: libnginx-mod-stream). nginx sends PROXY protocol version 1, and has no health",
    );
    comment(
        &mut out,
        "",
        "checks of its own: keep this file current with --watch, and give the slaves DRAIN_NOTICE=\"20\" or more.",
    );
    // One switch for all servers: who does not take the header would refuse it.
    let all_take_header = backends.slaves.iter().all(|slave| slave.proxy_protocol);
    if !all_take_header {
        comment(
            &mut out,
            "",
            "A slave has PROXY_PROTOCOL=\"off\", so no client address is passed on: set it on all slaves.",
        );
    }
    let header = if all_take_header { "on" } else { "off" };
    out.push_str(
        "
user www-data;
worker_processes auto;
worker_rlimit_nofile 65536;
pid /run/nginx.pid;
include /etc/nginx/modules-enabled/*.conf;

events {
    worker_connections 32768;
}

stream {
    upstream tidegate_slaves {
        least_conn;
",
    );
    for slave in &backends.slaves {
        server(&mut out, slave);
    }
    if backends.slaves.is_empty() {
        // An upstream without servers is an error: this one refuses every client at once.
        comment(&mut out, "        ", "no slave is known: start one, and make this file again");
        out.push_str("        server 127.0.0.1:9 down;\n");
    }
    let _ = write!(
        out,
        "    }}

    server {{
        listen {listen};
        proxy_pass tidegate_slaves;
        proxy_protocol {header};
        proxy_connect_timeout 2s;
        proxy_next_upstream on;
        # The nodes' own deadlines are shorter: they end what stands still, and record why.
        proxy_timeout 1h;
        tcp_nodelay on;
    }}
}}
"
    );
    out
}

fn server(out: &mut String, slave: &Backend) {
    let why = match (slave.away.as_str(), slave.draining) {
        ("", false) => "",
        ("", true) => "drained",
        (away, _) => away,
    };
    if !why.is_empty() {
        comment(out, "        ", &format!("{} is {why}", slave.name));
    }
    let down = if why.is_empty() { "" } else { " down" };
    comment(out, "        ", &slave.name);
    let _ = writeln!(out, "        server {} weight={} max_fails=1 fail_timeout=2s{down};", slave.proxy, slave.weight);
}

#[cfg(test)]
mod tests {
    use super::super::backends;
    use super::super::tests::cluster;
    use super::*;

    #[test]
    fn who_is_away_or_drained_is_down_and_one_slave_without_the_header_turns_it_off() {
        let mut rows = cluster();
        let text = config(&backends(&rows), "8080");
        let servers: Vec<_> = text.lines().filter(|line| line.contains("weight=")).map(str::trim).collect();
        assert_eq!(
            servers,
            [
                "server 10.0.0.1:8080 weight=4 max_fails=1 fail_timeout=2s;",
                "server [2001:db8::2]:8080 weight=4 max_fails=1 fail_timeout=2s down;",
                "server 192.0.2.3:3128 weight=4 max_fails=1 fail_timeout=2s down;",
            ]
        );
        assert!(text.contains("proxy_protocol off;") && text.contains("set it on all slaves"), "{text}");
        rows.retain(|row| row.name != "s3");
        assert!(config(&backends(&rows), "8080").contains("proxy_protocol on;"));
        assert!(config(&Backends::default(), "8080").contains("server 127.0.0.1:9 down;"));
    }
}
