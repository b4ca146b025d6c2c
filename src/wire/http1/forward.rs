//! The head that goes on: normalised, with one Host, one way of framing, our Via, and nothing that was meant for this hop.

use std::net::IpAddr;

use super::body::BodyFraming;
use super::head::Field;
use super::head::Fields;
use super::head::Known;
use super::head::Version;
use super::head::protocols;
use super::reply::ReplyHead;
use super::request::MethodKind;
use super::request::RequestHead;
use super::request::is_secret;
use super::target::TargetForm;

/// Who gets the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ForwardTo {
    /// The origin itself: origin form.
    #[default]
    Origin,
    /// Another proxy: absolute form, or authority form for CONNECT.
    Parent,
}

/// What the next machine learns about the client's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TellClient {
    /// Nothing: X-Forwarded-For and Forwarded are dropped.
    #[default]
    Nothing,
    /// What came, unchanged.
    AsReceived,
    /// X-Forwarded-For: what came if `keep`, then the client. Forwarded is dropped.
    XForwardedFor {
        /// The client, or the proxy it came through.
        client: IpAddr,
        /// Whether who sent the request is trusted to have said the truth.
        keep: bool,
    },
    /// The same with Forwarded (RFC 7239). X-Forwarded-For is dropped.
    Forwarded {
        /// The client, or the proxy it came through.
        client: IpAddr,
        /// Whether who sent the request is trusted to have said the truth.
        keep: bool,
    },
}

/// How a request goes on.
#[derive(Clone, Copy, Debug, Default)]
pub struct ForwardRequest<'a> {
    /// Our name in Via: a token, the same on every hop of this node.
    pub via: &'a str,
    /// Origin or parent proxy.
    pub to: ForwardTo,
    /// Ask the next machine to close after its reply.
    pub close: bool,
    /// Pass the client's Upgrade on, because policy allows it.
    pub keep_upgrade: bool,
    /// Drop Expect, because the proxy sends `100 Continue` itself.
    pub drop_expect: bool,
    /// What to say about the client.
    pub tell: TellClient,
}

/// How a reply goes on.
#[derive(Clone, Copy, Debug, Default)]
pub struct ForwardReply<'a> {
    /// Our name in Via.
    pub via: &'a str,
    /// The version the client spoke.
    pub client: Version,
    /// The client's connection closes after this reply, whatever its framing would allow.
    pub close: bool,
    /// Pass the origin's Upgrade on: for 101, and for 426 where policy allows upgrades.
    pub keep_upgrade: bool,
    /// The date to add if the origin sent none (RFC 9110 section 6.6.1).
    pub date: Option<&'a str>,
}

/// What the written reply head obliges the caller to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyPlan {
    /// Close the client's connection after the body.
    pub close: bool,
    /// Send the payload only, without chunk lines: the client speaks HTTP/1.0.
    pub dechunk: bool,
}

/// Appends the head that goes to the next machine. The body follows as it is framed in `head`.
pub fn forward_request(head: &RequestHead, buf: &[u8], how: &ForwardRequest<'_>, out: &mut Vec<u8>) {
    write_request_line(head, buf, how.to, out);
    write_host(head, out);
    let is_trace = head.kind == MethodKind::Trace;
    copy_fields(&head.fields, buf, out, |field| match field.known {
        Known::Expect => !how.drop_expect && head.expects_continue(),
        Known::XForwardedFor => {
            matches!(how.tell, TellClient::AsReceived | TellClient::XForwardedFor { keep: true, .. })
        }
        Known::Forwarded => matches!(how.tell, TellClient::AsReceived | TellClient::Forwarded { keep: true, .. }),
        Known::MaxForwards => !is_trace && head.kind != MethodKind::Options,
        // A client must not send secrets with TRACE (RFC 9110 section 9.3.8): the origin would reflect them.
        _ => !is_trace || !is_secret(field.name.of_buf(buf)),
    });
    if let Some(left) = head.max_forwards() {
        field(out, "Max-Forwards", left.saturating_sub(1));
    }
    write_client(how.tell, out);
    write_framing(head.framing(), out);
    // Only with a nomination are TE and Upgrade heard by the next hop alone (RFC 9110 sections 7.8 and 10.1.4).
    let upgrade = head.fields.said.upgrade.filter(|_| how.keep_upgrade && head.wants_upgrade());
    let trailers = head.fields.said.trailers;
    if let Some(upgrade) = upgrade {
        write_upgrade(upgrade.of_buf(buf), out);
    }
    if trailers {
        raw_field(out, b"TE", b"trailers");
    }
    write_connection(how.close, upgrade.is_some(), trailers, out);
    write_via(head.version, how.via, out);
    out.extend_from_slice(b"\r\n");
}

/// Appends the head that goes to the client.
pub fn forward_reply(head: &ReplyHead, buf: &[u8], how: &ForwardReply<'_>, out: &mut Vec<u8>) -> ReplyPlan {
    let old_client = how.client == Version::Http10;
    let plan = ReplyPlan {
        // An interim reply ends nothing.
        close: !head.is_interim() && (how.close || old_client || head.framing() == BodyFraming::Close),
        dechunk: old_client && head.framing() == BodyFraming::Chunked,
    };
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(&status_digits(head.status()));
    out.push(b' ');
    out.extend_from_slice(head.reason.of_buf(buf));
    out.extend_from_slice(b"\r\n");
    copy_fields(&head.fields, buf, out, |_| true);
    if let Some(date) = how.date.filter(|_| !head.fields.said.date && !head.is_interim()) {
        raw_field(out, b"Date", date.as_bytes());
    }
    match head.framing() {
        // A reply without a body may say how long the body would have been; 1xx and 204 may not (RFC 9110 section 8.6).
        BodyFraming::None if head.status() >= 200 && head.status() != 204 => write_would_be_length(head, out),
        BodyFraming::None => {}
        framing if !plan.dechunk => write_framing(framing, out),
        _ => {}
    }
    let upgrade = head.fields.said.upgrade.filter(|_| how.keep_upgrade);
    if let Some(upgrade) = upgrade {
        write_upgrade(upgrade.of_buf(buf), out);
    }
    write_connection(plan.close && upgrade.is_none(), upgrade.is_some(), false, out);
    write_via(head.version, how.via, out);
    out.extend_from_slice(b"\r\n");
    plan
}

fn write_request_line(head: &RequestHead, buf: &[u8], to: ForwardTo, out: &mut Vec<u8>) {
    let path = head.path(buf);
    out.extend_from_slice(head.method(buf).as_bytes());
    out.push(b' ');
    let whole_server = path == "/" && head.kind == MethodKind::Options && head.path.start == head.path.end;
    match (to, head.form()) {
        (_, TargetForm::Authority) => write_authority(head, true, out),
        (ForwardTo::Parent, TargetForm::Absolute) => {
            out.extend_from_slice(head.scheme().name().as_bytes());
            out.extend_from_slice(b"://");
            write_authority(head, false, out);
            // `OPTIONS http://host` asks about the whole server; with a path it would not.
            if !whole_server {
                write_path(path, out);
            }
        }
        (ForwardTo::Origin, TargetForm::Absolute) if whole_server => out.push(b'*'),
        _ => write_path(path, out),
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
}

fn write_path(path: &str, out: &mut Vec<u8>) {
    if path.starts_with('?') {
        out.push(b'/');
    }
    out.extend_from_slice(path.as_bytes());
}

fn write_host(head: &RequestHead, out: &mut Vec<u8>) {
    out.extend_from_slice(b"Host: ");
    if !head.host().is_empty() {
        write_authority(head, head.form() == TargetForm::Authority, out);
    }
    out.extend_from_slice(b"\r\n");
}

fn write_authority(head: &RequestHead, always_port: bool, out: &mut Vec<u8>) {
    let bracketed = matches!(head.address(), Some(IpAddr::V6(_)));
    out.extend_from_slice(if bracketed { b"[" } else { b"" });
    out.extend_from_slice(head.host().as_bytes());
    out.extend_from_slice(if bracketed { b"]" } else { b"" });
    if always_port || head.port() != head.scheme().default_port() {
        out.push(b':');
        push_number(u64::from(head.port()), out);
    }
}

/// Copies the fields that go on, runs of them at once: most heads have long stretches that do not concern us.
fn copy_fields(fields: &Fields, buf: &[u8], out: &mut Vec<u8>, also: impl Fn(&Field) -> bool) {
    let mut run: Option<(u32, u32)> = None;
    for field in &fields.list {
        let goes_on = match field.known {
            Known::Other | Known::XForwardedFor | Known::Forwarded => {
                (!fields.said.nominates || !fields.nominated(buf, field.name.of_buf(buf))) && also(field)
            }
            Known::Via | Known::Date => true,
            Known::Pinned | Known::Expect | Known::MaxForwards => also(field),
            Known::Connection
            | Known::Hop
            | Known::Te
            | Known::TransferEncoding
            | Known::ContentLength
            | Known::Host
            | Known::Upgrade => false,
        };
        if goes_on {
            run = Some((run.map_or(field.name.start, |(start, _)| start), field.value.end));
            continue;
        }
        flush(run.take(), buf, out);
    }
    flush(run, buf, out);
}

/// Copies a run of whole lines; white space after its last value is left behind.
fn flush(run: Option<(u32, u32)>, buf: &[u8], out: &mut Vec<u8>) {
    if let Some((start, end)) = run {
        out.extend_from_slice(buf.get(start as usize..end as usize).unwrap_or(&[]));
        out.extend_from_slice(b"\r\n");
    }
}

/// A line of its own: a list may stand in several (RFC 9110 section 5.3).
fn write_client(tell: TellClient, out: &mut Vec<u8>) {
    let client = match tell {
        TellClient::Nothing | TellClient::AsReceived => return,
        TellClient::XForwardedFor { client, .. } => client.to_string(),
        TellClient::Forwarded { client, .. } => match client {
            IpAddr::V4(v4) => format!("for={v4}"),
            // A colon is none of a token's characters (RFC 7239 section 6).
            IpAddr::V6(v6) => format!("for=\"[{v6}]\""),
        },
    };
    let name: &[u8] = if matches!(tell, TellClient::Forwarded { .. }) { b"Forwarded" } else { b"X-Forwarded-For" };
    raw_field(out, name, client.as_bytes());
}

fn write_framing(framing: BodyFraming, out: &mut Vec<u8>) {
    match framing {
        BodyFraming::Length(bytes) => field(out, "Content-Length", bytes),
        BodyFraming::Chunked => raw_field(out, b"Transfer-Encoding", b"chunked"),
        BodyFraming::None | BodyFraming::Close => {}
    }
}

fn write_would_be_length(head: &ReplyHead, out: &mut Vec<u8>) {
    if let super::head::LengthSaid::Bytes(bytes) = head.fields.said.length {
        field(out, "Content-Length", bytes);
    }
}

fn write_connection(close: bool, upgrade: bool, te: bool, out: &mut Vec<u8>) {
    let said: &[u8] = match (close, upgrade, te) {
        (false, false, false) => return,
        (true, false, false) => b"close",
        (false, true, false) => b"Upgrade",
        (false, false, true) => b"TE",
        (true, true, false) => b"close, Upgrade",
        (true, false, true) => b"close, TE",
        (false, true, true) => b"Upgrade, TE",
        (true, true, true) => b"close, Upgrade, TE",
    };
    raw_field(out, b"Connection", said);
}

fn write_upgrade(value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"Upgrade: ");
    for (index, protocol) in protocols(value).enumerate() {
        out.extend_from_slice(if index > 0 { b", " } else { b"" });
        out.extend_from_slice(protocol);
    }
    out.extend_from_slice(b"\r\n");
}

fn write_via(received: Version, pseudonym: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"Via: ");
    out.extend_from_slice(received.number().as_bytes());
    out.push(b' ');
    out.extend_from_slice(pseudonym.as_bytes());
    out.extend_from_slice(b"\r\n");
}

pub(super) fn raw_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

pub(super) fn field(out: &mut Vec<u8>, name: &str, value: u64) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    push_number(value, out);
    out.extend_from_slice(b"\r\n");
}

/// Three digits, whatever the status.
pub(super) fn status_digits(status: u16) -> [u8; 3] {
    let digit = |n: u16| b'0' + (n % 10) as u8;
    [digit(status / 100), digit(status / 10), digit(status)]
}

fn push_number(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}
