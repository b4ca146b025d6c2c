//! A whole haproxy.cfg. TCP mode: the node itself speaks HTTP with the client, tunnels and all.

use super::Backend;
use super::Backends;
use super::comment;
use super::title;
use std::fmt::Write;
use std::net::IpAddr;

/// What the administrator may choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where clients connect, as HAProxy writes it: `:8080`, `10.0.0.5:8080`.
    pub bind: String,
    /// `leastconn`, `roundrobin` or `source`.
    pub balance: String,
    /// Send no client to a slave that was not in step with its master for so many seconds.
    pub synced_within_s: Option<u64>,
}

/// The configuration.
pub fn config(backends: &Backends, options: &Options) -> String {
    let mut out = String::new();
    title(&mut out, backends, "haproxy");
    comment(&mut out, "", "On each slave: TRUSTED_PROXIES=\"<this balancer's addresses>\" PROXY_PROTOCOL=\"required\"");
    let check = match options.synced_within_s {
        Some(seconds) => format!("/health?synced_within_s={seconds}"),
        None => "/health".to_string(),
    };
    let (bind, balance) = (&options.bind, &options.balance);
    // Timeouts of an hour: the nodes' own (TUNNEL_TIME and the others) end what stands still, and record why.
    let _ = write!(
        out,
        "
global
    log /dev/log local0

defaults
    log global
    mode tcp
    option tcplog
    option dontlognull
    # A slave that does not accept costs a client another try at another one, not an error.
    retries 3
    option redispatch 1
    timeout connect 2s
    # The nodes' own deadlines are shorter: they end what stands still, and record why.
    timeout client 1h
    timeout server 1h
    timeout check 2s

frontend tidegate
    bind {bind}
    default_backend tidegate_slaves

backend tidegate_slaves
    balance {balance}
    option httpchk
    http-check send meth GET uri {check}
    http-check expect status 200
    default-server inter 1s fastinter 500ms fall 2 rise 2
"
    );
    for slave in &backends.slaves {
        server(&mut out, slave);
    }
    if backends.slaves.is_empty() {
        comment(&mut out, "    ", "no slave is known: start one, and make this file again");
    }
    out
}

fn server(out: &mut String, slave: &Backend) {
    if !slave.away.is_empty() {
        comment(out, "    ", &format!("{} is {}", slave.name, slave.away));
    }
    if slave.draining {
        comment(out, "    ", &format!("{} is drained: its health check says so until `tidegate undrain`", slave.name));
    }
    if !slave.proxy_protocol {
        let words = format!("{} has PROXY_PROTOCOL=\"off\": in its log every client is this balancer", slave.name);
        comment(out, "    ", &words);
    }
    let _ = write!(out, "    server {} {} check", slave.name, slave.proxy);
    if slave.health.ip() != slave.proxy.ip() {
        match slave.health.ip() {
            IpAddr::V4(v4) => write!(out, " addr {v4}"),
            IpAddr::V6(v6) => write!(out, " addr [{v6}]"),
        }
        .unwrap_or_default();
    }
    // A port of its own for checks also keeps the PROXY header out of them.
    let _ = write!(out, " port {} weight {}", slave.health.port(), slave.weight);
    if slave.proxy_protocol {
        out.push_str(" send-proxy-v2 proxy-v2-options crc32c");
    }
    out.push_str(if slave.away.is_empty() { "\n" } else { " disabled\n" });
}

#[cfg(test)]
mod tests {
    use super::super::backends;
    use super::super::tests::cluster;
    use super::*;

    #[test]
    fn every_slave_has_a_line_and_the_master_has_none() {
        let options = Options { bind: "10.0.0.5:8080".into(), balance: "leastconn".into(), synced_within_s: Some(60) };
        let text = config(&backends(&cluster()), &options);
        let servers: Vec<_> = text.lines().filter(|line| line.trim_start().starts_with("server ")).collect();
        assert_eq!(
            servers,
            [
                "    server s1 10.0.0.1:8080 check addr 192.0.2.1 port 8888 weight 4 send-proxy-v2 proxy-v2-options crc32c",
                "    server s2 [2001:db8::2]:8080 check port 8888 weight 4 send-proxy-v2 \
                 proxy-v2-options crc32c disabled",
                "    server s3 192.0.2.3:3128 check port 8888 weight 4",
            ]
        );
        for words in [
            "bind 10.0.0.5:8080\n",
            "uri /health?synced_within_s=60\n",
            "# left out: s4 at 192.0.2.4: VersionMismatch: other versions\n",
            "    # s2 is away: the master has not heard of it since",
            "    # s3 is drained",
            "    # s3 has PROXY_PROTOCOL=\"off\"",
        ] {
            assert!(text.contains(words), "{words:?} in\n{text}");
        }
    }
}
