//! `tidegate verify`: the checklist of a node, a line a check, passed or what to do.

use super::desk::NodeDesk;
use super::kernel;
use crate::admin::Check;
use crate::admin::KernelCheck;
use crate::admin::Status;
use crate::admin::Verdict;
use crate::base::clock::Mono;
use crate::base::clock::Wall;
use crate::cluster::MasterLink;
use crate::cluster::NodeRow;
use crate::limits::CLOCK_SKEW_WARN_MS;
use crate::limits::VERIFY_MISLED_ROWS;
use crate::limits::VERIFY_MISLED_S;
use crate::limits::VERIFY_MS_MAX;
use crate::report;
use crate::report::Question;
use crate::settings::ProxyProtocol;
use crate::settings::Role;
use crate::settings::Settings;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// The name the probe asks for: it never exists.
const PROBE: &str = "probe.tidegate.invalid";

/// Walks the checklist, in the order in which one failure explains the next.
pub async fn walk(desk: &NodeDesk) -> Vec<Check> {
    let status = desk.status();
    let mut checks = host(&kernel::look(desk));
    checks.extend([params(&status), policy(&status), log(&status)]);
    if let Some(link) = &status.master {
        checks.push(reachable(link).await);
        checks.push(member(link));
        checks.push(clock(link));
        checks.push(same_policy(&status, link));
    }
    if desk.facts.role == Role::Master {
        checks.extend((desk.views.nodes)().iter().map(slave));
        checks.push(no_clients(desk).await);
    }
    checks.push(probe(desk).await);
    checks
}

fn check(name: &str, fault: Option<String>, passed: String) -> Check {
    Check { name: name.to_string(), passed: fault.is_none(), words: fault.unwrap_or(passed) }
}

/// A line for each thing of the host that hurts; one for all the rest.
fn host(looked: &[KernelCheck]) -> Vec<Check> {
    let (bad, rest): (Vec<_>, Vec<_>) = looked.iter().partition(|check| check.verdict == Verdict::Hurts);
    let mut checks: Vec<_> = bad
        .into_iter()
        .map(|bad| check(&bad.name, Some(format!("{}. {} {}", bad.found, bad.why, bad.remedy)), String::new()))
        .collect();
    let of = |verdict| rest.iter().filter(move |check| check.verdict == verdict).map(|check| check.name.as_str());
    let told = |verdict, words: &str| match of(verdict).collect::<Vec<_>>() {
        names if names.is_empty() => String::new(),
        names => format!("; {words} {}", names.join(", ")),
    };
    let good = of(Verdict::Good).count();
    let (advice, unknown) = (told(Verdict::Advice, "advice on"), told(Verdict::Unknown, "not to be seen:"));
    let more = if advice.is_empty() { "" } else { " (tidegate kernel)" };
    checks.push(check("kernel and host", None, format!("{good} found nothing{advice}{more}{unknown}")));
    checks
}

fn params(status: &Status) -> Check {
    let fault = match (&status.params_trouble[..], &status.waiting_for_restart[..]) {
        ([], []) => None,
        ([], waiting) => Some(format!("{} changed and wait for a restart: run `tidegate restart`", waiting.join(", "))),
        (faults, _) => {
            Some(format!("startup.ini has faults, the values of before are in force: {}", faults.join("; ")))
        }
    };
    check("startup params", fault, "as in the file".to_string())
}

fn policy(status: &Status) -> Check {
    let fault = (status.policy_version == 0).then(|| match status.role.as_str() {
        "slave" => "no policy has come from the master yet: every client is denied".to_string(),
        _ => "no policy has been applied yet: every client is denied. Run `tidegate policy apply FILE`".to_string(),
    });
    check("policy in force", fault, status.snapshot.clone())
}

fn log(status: &Status) -> Check {
    let fault = (!status.log_trouble.is_empty()).then(|| status.log_trouble.clone());
    let lag = status.records_written.saturating_sub(status.records_acknowledged);
    check("extended.log", fault, format!("{} records written, {lag} not yet in the report", status.records_written))
}

async fn reachable(link: &MasterLink) -> Check {
    let fault = match within(TcpStream::connect(&link.address)).await {
        Ok(_) => None,
        Err(error) => Some(format!(
            "connecting to {}: {error}. Is MASTER_IP right, is the master running, is its port open in every firewall between?",
            link.address
        )),
    };
    check("master reachable", fault, link.address.clone())
}

fn member(link: &MasterLink) -> Check {
    let fault = (!link.up || !link.trouble.is_empty()).then(|| match link.trouble.is_empty() {
        true => "no contact with the master yet".to_string(),
        false => link.trouble.clone(),
    });
    check("member of the cluster", fault, "activation key, version, name and allow list are in order".to_string())
}

fn clock(link: &MasterLink) -> Check {
    let skew = link.clock_skew_ms;
    let fault = (skew.abs() > CLOCK_SKEW_WARN_MS)
        .then(|| format!("this clock is {skew} ms off the master's: set up NTP (chrony or systemd-timesyncd) on both"));
    check("clock", fault, format!("{skew} ms off the master's"))
}

fn same_policy(status: &Status, link: &MasterLink) -> Check {
    let master = &link.master_snapshot;
    let fault = (*master != status.snapshot && !master.is_empty())
        .then(|| format!("the master is at {master}, this node enforces {}", status.snapshot));
    let unknown = (master.is_empty()).then(|| "the master's policy is not known: no contact yet".to_string());
    check("policy equal to the master's", fault.or(unknown), status.snapshot.clone())
}

fn slave(row: &NodeRow) -> Check {
    let fault = match row {
        row if !row.refusal.is_empty() => Some(row.refusal.clone()),
        row if !row.error.is_empty() => Some(row.error.clone()),
        row if !row.up => Some("not heard of lately: is it running, can it reach this master?".to_string()),
        row if !row.current => Some(format!("enforces {}, not the current policy", row.snapshot)),
        row if row.clock_skew_ms.abs() > CLOCK_SKEW_WARN_MS => {
            Some(format!("its clock is {} ms off", row.clock_skew_ms))
        }
        _ => None,
    };
    let name = format!("{} {}", row.role, row.name);
    check(&name, fault, format!("up, enforces {}, {} records to come", row.snapshot, row.record_lag))
}

/// A master in a balancer's backend shows in two ways: somebody asks its /health again and again, or sends it clients'
/// requests, which it refuses and records.
async fn no_clients(desk: &NodeDesk) -> Check {
    let remedy = "Take this master out of every balancer's backend (tidegate lb lists the slaves alone) and out of browsers' \
                  settings";
    let name = "no client is sent to the master";
    if let Some(checker) = desk.drain.watchers(Mono::now()).first() {
        let words = format!("{} checks this master's /health as a balancer does. {remedy}", checker.address);
        return check(name, Some(words), String::new());
    }
    let Some(records) = desk.records.clone() else {
        return check(name, Some("this master has no record store".to_string()), String::new());
    };
    let question = Question {
        from_us: Some(Wall::now().0 - VERIFY_MISLED_S * 1_000_000),
        node: Some(desk.facts.name.clone()),
        rows_only: true,
        newest: Some(VERIFY_MISLED_ROWS),
        ..Question::default()
    };
    let minutes = VERIFY_MISLED_S / 60;
    match tokio::task::spawn_blocking(move || report::answer(&*records, &question)).await {
        Ok(Ok(answer)) => {
            let misled: Vec<_> = answer.newest.iter().filter(|row| !row.url.contains(PROBE)).collect();
            let fault = misled.first().map(|row| {
                let count = misled.len();
                format!(
                    "{count} or more requests came in the last {minutes} minutes, the last from {}. {remedy}",
                    row.user
                )
            });
            check(name, fault, format!("no request in the last {minutes} minutes"))
        }
        Ok(Err(error)) => check(name, Some(format!("asking the record store: {error}")), String::new()),
        Err(error) => check(name, Some(format!("asking the record store: {error}")), String::new()),
    }
}

/// One request through this node's own listener, to a name that never exists, must end up in the report.
async fn probe(desk: &NodeDesk) -> Check {
    let name = "a probe request is in the report";
    let Some(listener) = desk.facts.listen.first() else {
        return check(name, Some("this node has no listener".to_string()), String::new());
    };
    let listener = reach(*listener);
    let header = match probe_header(&desk.params.watch().borrow(), listener.ip()) {
        Ok(header) => header,
        Err(words) => return check(name, None, words),
    };
    let before = desk.views.progress.borrow().written;
    if let Err(error) = within(send_probe(listener, header)).await {
        return check(name, Some(format!("sending a request through {listener}: {error}")), String::new());
    }
    let arrived = within(async {
        loop {
            let acknowledged = (desk.views.acknowledged)();
            if acknowledged > before {
                return Ok(acknowledged);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    match arrived.await {
        Ok(seq) => check(name, None, format!("record {seq} arrived")),
        Err(_) => {
            let words = format!(
                "the request was answered, but its record did not reach the report within {VERIFY_MS_MAX} ms; see the lines above"
            );
            check(name, Some(words), String::new())
        }
    }
}

/// What this host must say before its request where PROXY_PROTOCOL is required: that it asks for itself. Words if it is not
/// among those who may say anything: then the node rightly closes such a connection, and balancers alone can ask.
fn probe_header(settings: &Settings, from: IpAddr) -> Result<&'static str, String> {
    match settings.proxy_protocol {
        ProxyProtocol::Off | ProxyProtocol::Optional => Ok(""),
        ProxyProtocol::Required if settings.trusted_proxies.holds(from) => Ok("PROXY UNKNOWN\r\n"),
        ProxyProtocol::Required => Err(format!(
            "not sent: PROXY_PROTOCOL is required and {from} is not in TRUSTED_PROXIES, so that balancers alone are served. Ask \
             through the balancer"
        )),
    }
}

async fn send_probe(listener: SocketAddr, header: &str) -> io::Result<()> {
    let mut stream = TcpStream::connect(listener).await?;
    stream.write_all(header.as_bytes()).await?;
    let request = format!(
        "GET http://{PROBE}/ HTTP/1.1\r\nHost: {PROBE}\r\nUser-Agent: tidegate-verify\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = [0; 9];
    stream.read_exact(&mut answer).await?;
    // Drained to its end, so that the exchange ends well and not as a client that went away.
    let mut rest = Vec::new();
    stream.take(64 * 1024).read_to_end(&mut rest).await?;
    if answer.starts_with(b"HTTP/1.1 ") { Ok(()) } else { Err(io::Error::other("the answer is no HTTP/1.1")) }
}

/// A listener on every address is reached on loopback.
fn reach(listener: SocketAddr) -> SocketAddr {
    let ip = match listener.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listener.port())
}

async fn within<T>(doing: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(Duration::from_millis(VERIFY_MS_MAX), doing).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {VERIFY_MS_MAX} ms"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hurts_on_the_host_fails_the_checklist_and_advice_is_named_in_one_line() {
        let check = |name: &str, verdict| KernelCheck {
            name: name.into(),
            verdict,
            found: "128".into(),
            why: "It matters.".into(),
            remedy: "sysctl -w x=1".into(),
        };
        let looked = [
            check("backlog", Verdict::Hurts),
            check("ports", Verdict::Advice),
            check("clock", Verdict::Unknown),
            check("entropy", Verdict::Good),
        ];
        let checks = host(&looked);
        assert_eq!(checks.len(), 2, "{checks:?}");
        assert!(!checks[0].passed && checks[0].words == "128. It matters. sysctl -w x=1", "{checks:?}");
        assert!(checks[1].passed, "{checks:?}");
        assert_eq!(checks[1].words, "1 found nothing; advice on ports (tidegate kernel); not to be seen: clock");
    }
}
