//! The head of a request: parsed once, asked often, allocating nothing once its memory has grown.

use std::net::IpAddr;

use super::body::BodyFraming;
use super::body::announced;
use super::forward::raw_field;
use super::head::ExpectSaid;
use super::head::FieldFault;
use super::head::Fields;
use super::head::HopsSaid;
use super::head::Parsed;
use super::head::Span;
use super::head::Version;
use super::head::field_fault;
use super::head::has_bare_line_feed;
use super::head::is_token_byte;
use super::head::leading_empty;
use super::head::protocols;
use super::head::raw_fields;
use super::head::shortest_wrong;
use super::head::window;
use super::reply::ReplyTo;
use super::request_error::RequestError;
use super::request_error::framing_fault;
use super::request_error::target_fault;
use super::target::Scheme;
use super::target::TargetForm;
use super::target::normalise_host;
use super::target::split_authority;
use super::target::split_scheme;
use crate::limits::HEAD_BYTES_MAX;
use crate::limits::REQUEST_LINE_BYTES_MAX;

/// Reads a request head from the start of `buf` into `head`.
///
/// On [`Parsed::Partial`] read more and call again with the same head and the longer buffer; call
/// [`RequestHead::clear`] before another connection uses the head. Accessors that take `buf` want the buffer that was
/// parsed, at least as long as the head.
pub fn parse_request(buf: &[u8], head: &mut RequestHead) -> Result<Parsed, RequestError> {
    let window = window(buf);
    if head.fields.nothing_new(window) {
        return partial(window, head);
    }
    let leading = leading_empty(window);
    let mut fields = raw_fields();
    let mut raw = httparse::Request::new(&mut []);
    let bytes = match raw.parse_with_uninit_headers(window, &mut fields) {
        Err(_) => return name_the_fault(window).map_or_else(|| partial(window, head), Err),
        Ok(_) if leading.is_none() => return Err(RequestError::LeadingLines),
        Ok(httparse::Status::Complete(bytes)) => bytes,
        Ok(httparse::Status::Partial) => return partial(window, head),
    };
    if has_bare_line_feed(&window[..bytes]) {
        return Err(RequestError::BareLineFeed);
    }
    let (Some(method), Some(target), Some(minor)) = (raw.method, raw.path, raw.version) else {
        return Err(RequestError::RequestLine);
    };
    // Both ends are in `window`: the line is what stands between the empty lines and the version.
    if Span::of(window, target.as_bytes()).end as usize - leading.unwrap_or(0) + " HTTP/1.1".len()
        > REQUEST_LINE_BYTES_MAX
    {
        return Err(RequestError::LineTooLong);
    }
    head.method = Span::of(window, method.as_bytes());
    head.kind = MethodKind::of(method);
    head.version = if minor == 0 { Version::Http10 } else { Version::Http11 };
    head.fields.fill(window, raw.headers);
    head.understand_method(method)?;
    head.understand_target(window, target.as_bytes())?;
    head.understand_framing()?;
    head.understand_hop(method)?;
    Ok(Parsed::Complete(bytes))
}

/// The methods this hop treats in their own way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) enum MethodKind {
    #[default]
    Other,
    /// GET, by far the most frequent.
    Get,
    /// DELETE, PUT: safe to send again.
    Idempotent,
    Head,
    Connect,
    Options,
    Trace,
}

impl MethodKind {
    fn of(method: &str) -> MethodKind {
        match method {
            "GET" => MethodKind::Get,
            "PUT" | "DELETE" => MethodKind::Idempotent,
            "HEAD" => MethodKind::Head,
            "CONNECT" => MethodKind::Connect,
            "OPTIONS" => MethodKind::Options,
            "TRACE" => MethodKind::Trace,
            _ => MethodKind::Other,
        }
    }
}

/// A request's head as ranges into the buffer it was parsed from. Keep one per connection.
#[derive(Clone, Debug, Default)]
pub struct RequestHead {
    pub(super) method: Span,
    pub(super) kind: MethodKind,
    pub(super) version: Version,
    pub(super) form: TargetForm,
    scheme: Scheme,
    host: String,
    address: Option<IpAddr>,
    port: u16,
    pub(super) path: Span,
    pub(super) fields: Fields,
    framing: BodyFraming,
    /// Room to spell the Host field as the target is spelt.
    host_said: String,
    understood: Understood,
}

/// The authority and the Host field of the request before, as they were written, if host, address and port are still
/// theirs: most clients ask one host many times in a row, and what stood there then means the same now.
#[derive(Clone, Debug, Default)]
struct Understood {
    holds: bool,
    scheme: Scheme,
    authority: Vec<u8>,
    host_field: Vec<u8>,
}

impl Understood {
    /// Whether this says the same.
    fn is(&self, scheme: Scheme, authority: &[u8], host_field: &[u8]) -> bool {
        self.holds && self.scheme == scheme && self.authority == authority && self.host_field == host_field
    }

    /// Keeps what was understood.
    fn keep(&mut self, scheme: Scheme, authority: &[u8], host_field: &[u8]) {
        *self = Understood { holds: true, scheme, ..std::mem::take(self) };
        for (kept, said) in [(&mut self.authority, authority), (&mut self.host_field, host_field)] {
            kept.clear();
            kept.extend_from_slice(said);
        }
    }
}

impl RequestHead {
    /// A head that holds nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets what was read, keeps the memory: before another connection's bytes come.
    pub fn clear(&mut self) {
        self.fields.clear();
        self.host.clear();
        self.understood.holds = false;
    }

    /// The method as it was written; methods are case-sensitive.
    pub fn method<'b>(&self, buf: &'b [u8]) -> &'b str {
        if self.kind == MethodKind::Get { "GET" } else { self.method.text(buf) }
    }

    /// The method is CONNECT.
    pub fn is_connect(&self) -> bool {
        self.kind == MethodKind::Connect
    }

    /// The method may be sent again on a fresh connection if the first died without an answer (RFC 9110 section 9.2.2).
    pub fn is_idempotent(&self) -> bool {
        !matches!(self.kind, MethodKind::Other | MethodKind::Connect)
    }

    /// What a reply to this request must know about it.
    pub fn reply_to(&self) -> ReplyTo {
        match self.kind {
            MethodKind::Head => ReplyTo::Head,
            MethodKind::Connect => ReplyTo::Connect,
            _ => ReplyTo::Other,
        }
    }

    /// The version the client spoke.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The form of the target. Origin and asterisk forms are for origins: a proxy refuses them.
    pub fn form(&self) -> TargetForm {
        self.form
    }

    /// The target's scheme; `Http` where the form has none.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host in its one spelling: lower case, without brackets or trailing dot. Empty only for an HTTP/1.0 request in
    /// origin or asterisk form without Host.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The host, if it is an address. An IPv4 address in IPv6 clothes (`::ffff:10.0.0.1`) is still IPv6 here.
    pub fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// The port, the scheme's own if the target names none.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Path and query, ASCII; `/` when the target has neither, empty for CONNECT. A target that has a query but no path
    /// yields the query, which starts with `?`.
    pub fn path<'b>(&self, buf: &'b [u8]) -> &'b str {
        match self.form {
            TargetForm::Authority => "",
            TargetForm::Asterisk => "*",
            TargetForm::Absolute | TargetForm::Origin if self.path.start == self.path.end => "/",
            TargetForm::Absolute | TargetForm::Origin => self.path.text(buf),
        }
    }

    /// Appends the address as people write it: `http://host:port/path`, default ports left out; `host:port` for CONNECT.
    pub fn write_url(&self, buf: &[u8], out: &mut String) {
        if self.form != TargetForm::Authority {
            out.push_str(self.scheme.name());
            out.push_str("://");
        }
        self.write_authority(self.form == TargetForm::Authority, out);
        let path = self.path(buf);
        if path.starts_with(['?', '*']) {
            out.push('/');
        }
        out.push_str(path);
    }

    /// Appends `host` or `host:port`, an IPv6 address in brackets.
    pub fn write_authority(&self, always_port: bool, out: &mut String) {
        // Once for every request: without the machinery of `write!`.
        let bracketed = matches!(self.address, Some(IpAddr::V6(_)));
        if bracketed {
            out.push('[');
        }
        out.push_str(&self.host);
        if bracketed {
            out.push(']');
        }
        if always_port || self.port != self.scheme.default_port() {
            out.push(':');
            let (mut digits, mut unit) = (self.port, 10_000);
            while unit > 1 && digits / unit == 0 {
                unit /= 10;
            }
            while unit > 0 {
                out.push(char::from(b'0' + (digits / unit) as u8));
                digits %= unit;
                unit /= 10;
            }
        }
    }

    /// The first value of a field, its name compared without regard to case.
    pub fn field<'b>(&self, buf: &'b [u8], name: &str) -> Option<&'b [u8]> {
        self.fields.value(buf, name)
    }

    /// All fields in order.
    pub fn fields<'a, 'b: 'a>(&'a self, buf: &'b [u8]) -> impl Iterator<Item = (&'b str, &'b [u8])> + 'a {
        self.fields.pairs(buf)
    }

    /// Where the body ends: never [`BodyFraming::Close`].
    pub fn framing(&self) -> BodyFraming {
        self.framing
    }

    /// The client's connection may serve another request after this one. HTTP/1.0 clients never are kept: RFC 9112
    /// section 9.3 forbids it to proxies.
    pub fn keep_alive(&self) -> bool {
        self.version == Version::Http11 && !self.fields.said.close
    }

    /// The client waits for `100 Continue` before it sends the body.
    pub fn expects_continue(&self) -> bool {
        // HTTP/1.0 has no expectations: RFC 9110 section 10.1.1 has them ignored there.
        self.version == Version::Http11 && self.fields.said.expect == ExpectSaid::Continue && self.framing.has_body()
    }

    /// The protocols the client would rather speak, in its order; empty when it asks for none. `h2c` is never among them.
    pub fn upgrades<'b>(&self, buf: &'b [u8]) -> impl Iterator<Item = &'b str> {
        let asked = self.fields.said.upgrade.filter(|_| self.version == Version::Http11 && !self.is_connect());
        let value = asked.map_or(&[][..], |span| span.of_buf(buf));
        protocols(value).map(|token| std::str::from_utf8(token).unwrap_or(""))
    }

    /// The client asks for another protocol.
    pub fn wants_upgrade(&self) -> bool {
        self.fields.said.upgrade.is_some() && self.version == Version::Http11 && !self.is_connect()
    }

    /// How many more hops a TRACE or OPTIONS may take: at 0 the proxy answers it itself (RFC 9110 section 7.6.2).
    pub fn max_forwards(&self) -> Option<u64> {
        match self.fields.said.max_forwards {
            HopsSaid::Left(hops) if self.heeds_max_forwards() => Some(hops),
            _ => None,
        }
    }

    /// Via names this pseudonym: the request goes in a circle (answer 508).
    pub fn went_in_a_circle(&self, buf: &[u8], pseudonym: &str) -> bool {
        self.fields.via_names(buf, pseudonym)
    }

    /// The method is TRACE.
    pub fn is_trace(&self) -> bool {
        self.kind == MethodKind::Trace
    }

    /// Appends the head as it came, for the answer to a TRACE, but for fields that are secrets (RFC 9110 section 9.3.8).
    pub fn write_trace(&self, buf: &[u8], out: &mut Vec<u8>) {
        let from_line = buf.get(self.method.start as usize..).unwrap_or(&[]);
        out.extend_from_slice(from_line.split(|byte| *byte == b'\r').next().unwrap_or(&[]));
        out.extend_from_slice(b"\r\n");
        for field in self.fields.list.iter().filter(|field| !is_secret(field.name.of_buf(buf))) {
            raw_field(out, field.name.of_buf(buf), field.value.of_buf(buf));
        }
        out.extend_from_slice(b"\r\n");
    }

    fn heeds_max_forwards(&self) -> bool {
        matches!(self.kind, MethodKind::Options | MethodKind::Trace)
    }

    fn understand_method(&self, method: &str) -> Result<(), RequestError> {
        let disguised = self.kind == MethodKind::Other
            && (method.eq_ignore_ascii_case("HEAD") || method.eq_ignore_ascii_case("CONNECT"));
        if disguised { Err(RequestError::MethodCase) } else { Ok(()) }
    }

    fn understand_target(&mut self, buf: &[u8], target: &[u8]) -> Result<(), RequestError> {
        // No early exit: this way the compiler looks at many bytes at once.
        if target.iter().fold(false, |bad, byte| bad | !(0x21..=0x7e).contains(byte) | (*byte == b'#')) {
            return Err(RequestError::TargetBytes);
        }
        let said = self.fields.said;
        if said.host_repeated {
            return Err(RequestError::HostRepeated);
        }
        if said.host.is_none() && self.version == Version::Http11 {
            return Err(RequestError::HostMissing);
        }
        let host_field = said.host.map(|span| span.of_buf(buf));
        if self.is_connect() {
            self.understood.holds = false;
            return self.understand_authority(buf, target, host_field);
        }
        match target {
            [b'/', ..] => self.understand_origin_form(buf, target, TargetForm::Origin, host_field),
            [b'*'] if self.kind == MethodKind::Options => {
                self.understand_origin_form(buf, target, TargetForm::Asterisk, host_field)
            }
            _ => self.understand_absolute(buf, target, host_field),
        }
    }

    fn understand_authority(
        &mut self,
        buf: &[u8],
        target: &[u8],
        host_field: Option<&[u8]>,
    ) -> Result<(), RequestError> {
        self.form = TargetForm::Authority;
        self.scheme = Scheme::Https;
        self.path = Span::of(buf, &target[target.len()..]);
        if target.contains(&b'/') || target.contains(&b'?') {
            return Err(RequestError::TargetForm);
        }
        let (host, port) = split_authority(target).map_err(target_fault)?;
        self.port = port.ok_or(RequestError::TargetPort)?;
        self.address = normalise_host(host, &mut self.host).map_err(target_fault)?;
        self.check_host_field(target, host_field)
    }

    fn understand_absolute(
        &mut self,
        buf: &[u8],
        target: &[u8],
        host_field: Option<&[u8]>,
    ) -> Result<(), RequestError> {
        let (scheme, rest) = split_scheme(target).ok_or(RequestError::TargetForm)?;
        self.form = TargetForm::Absolute;
        self.scheme = scheme.ok_or(RequestError::SchemeUnknown)?;
        let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        self.path = Span::of(buf, path);
        let said = host_field.unwrap_or_default();
        if host_field.is_some() && self.understood.is(self.scheme, authority, said) {
            return Ok(());
        }
        self.understood.holds = false;
        let (host, port) = split_authority(authority).map_err(target_fault)?;
        self.port = port.unwrap_or(self.scheme.default_port());
        self.address = normalise_host(host, &mut self.host).map_err(target_fault)?;
        self.check_host_field(authority, host_field)?;
        if host_field.is_some() {
            self.understood.keep(self.scheme, authority, said);
        }
        Ok(())
    }

    fn understand_origin_form(
        &mut self,
        buf: &[u8],
        target: &[u8],
        form: TargetForm,
        host_field: Option<&[u8]>,
    ) -> Result<(), RequestError> {
        self.understood.holds = false;
        self.form = form;
        self.scheme = Scheme::Http;
        self.path = Span::of(buf, target);
        self.port = self.scheme.default_port();
        self.address = None;
        self.host.clear();
        let Some(said) = host_field else { return Ok(()) };
        let malformed = |_| RequestError::HostMalformed;
        let (host, port) = split_authority(said).map_err(malformed)?;
        self.port = port.unwrap_or(self.port);
        self.address = normalise_host(host, &mut self.host).map_err(malformed)?;
        Ok(())
    }

    /// RFC 9112 section 3.2.2 has a proxy ignore a Host that differs from the target; a difference is how one machine is
    /// shown to policy and another to the origin, so it is refused.
    fn check_host_field(&mut self, authority: &[u8], host_field: Option<&[u8]>) -> Result<(), RequestError> {
        let Some(said) = host_field else { return Ok(()) };
        if said.eq_ignore_ascii_case(authority) {
            return Ok(());
        }
        let malformed = |_| RequestError::HostMalformed;
        let (host, port) = split_authority(said).map_err(malformed)?;
        normalise_host(host, &mut self.host_said).map_err(malformed)?;
        // Clients often leave the port out of Host beside CONNECT; there is only one it can mean.
        let default_port = if self.form == TargetForm::Authority { self.port } else { self.scheme.default_port() };
        if self.host_said != self.host || port.unwrap_or(default_port) != self.port {
            return Err(RequestError::HostDiffers);
        }
        Ok(())
    }

    fn understand_framing(&mut self) -> Result<(), RequestError> {
        let framing = announced(&self.fields.said, self.version).map_err(framing_fault)?;
        self.framing = framing.unwrap_or(BodyFraming::None);
        match self.kind {
            MethodKind::Connect if self.framing.has_body() => Err(RequestError::ConnectWithBody),
            MethodKind::Trace if self.framing.has_body() => Err(RequestError::TraceWithBody),
            _ => Ok(()),
        }
    }

    /// RFC 1945 section 7.2.2: a body cannot be ended by closing, and these methods have one.
    fn lacks_length(&self, method: &str) -> bool {
        self.version == Version::Http10 && self.framing == BodyFraming::None && matches!(method, "POST" | "PUT")
    }

    /// What is said to this hop beside framing.
    fn understand_hop(&self, method: &str) -> Result<(), RequestError> {
        let said = &self.fields.said;
        if self.lacks_length(method) {
            return Err(RequestError::LengthMissing);
        }
        if self.fields.too_many_options() {
            return Err(RequestError::TooManyOptions);
        }
        if said.upgrade_repeated {
            return Err(RequestError::UpgradeRepeated);
        }
        if said.max_forwards == HopsSaid::Malformed && self.heeds_max_forwards() {
            return Err(RequestError::MaxForwards);
        }
        if said.expect == ExpectSaid::Unknown && self.version == Version::Http11 {
            return Err(RequestError::Expectation);
        }
        Ok(())
    }
}

/// A field that whoever reads a reflected request must not learn: it may be a script that could not read it otherwise.
pub(super) fn is_secret(name: &[u8]) -> bool {
    const SECRETS: [&str; 5] = ["authorization", "proxy-authorization", "cookie", "cookie2", "x-api-key"];
    SECRETS.iter().any(|secret| name.eq_ignore_ascii_case(secret.as_bytes()))
}

fn partial(window: &[u8], head: &mut RequestHead) -> Result<Parsed, RequestError> {
    head.fields.seen = window.len();
    if window.len() > REQUEST_LINE_BYTES_MAX && line_too_long(window) {
        return Err(RequestError::LineTooLong);
    }
    if window.len() >= HEAD_BYTES_MAX {
        return Err(RequestError::HeadTooLarge);
    }
    Ok(Parsed::Partial)
}

fn line_too_long(window: &[u8]) -> bool {
    let line = &window[leading_empty(window).unwrap_or(0)..];
    // The CR is no part of the line.
    line.iter().position(|byte| *byte == b'\n').unwrap_or(line.len()) > REQUEST_LINE_BYTES_MAX + 1
}

/// Nothing if the next byte decides.
fn name_the_fault(window: &[u8]) -> Option<RequestError> {
    let parse = |front: &[u8]| {
        let mut fields = raw_fields();
        httparse::Request::new(&mut []).parse_with_uninit_headers(front, &mut fields).err()
    };
    let all = window;
    let (window, Some(error)) = shortest_wrong(window, parse) else { return Some(RequestError::RequestLine) };
    if leading_empty(window).is_none() {
        return Some(RequestError::LeadingLines);
    }
    if line_too_long(window) {
        return Some(RequestError::LineTooLong);
    }
    let start = leading_empty(window).unwrap_or(0);
    let line_end = window[start..].iter().position(|byte| *byte == b'\n').map_or(window.len(), |at| start + at);
    let line = &window[start..line_end];
    Some(match error {
        httparse::Error::TooManyHeaders => RequestError::TooManyFields,
        httparse::Error::HeaderName | httparse::Error::HeaderValue => {
            match field_fault(window.get(line_end + 1..).unwrap_or(&[])) {
                FieldFault::Folded => RequestError::Folded,
                FieldFault::Name => RequestError::FieldName,
                FieldFault::Control => RequestError::ControlByte,
            }
        }
        httparse::Error::NewLine if speaks_this_version(line) => RequestError::ControlByte,
        _ if !speaks_another_version(line) => RequestError::RequestLine,
        // A CR ends the line or stands bare in it.
        _ if window.ends_with(b"\r") => match all.get(window.len())? {
            b'\n' => RequestError::Version,
            _ => RequestError::RequestLine,
        },
        _ => RequestError::Version,
    })
}

fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.strip_suffix(b"\r").unwrap_or(line).split(|byte| *byte == b' ')
}

fn speaks_this_version(line: &[u8]) -> bool {
    let served = |version: &[u8]| version == b"HTTP/1.1" || version == b"HTTP/1.0";
    words(line).count() == 3 && words(line).nth(2).is_some_and(served)
}

/// `GET /` alone (HTTP/0.9), or a third word that names a version we do not speak.
fn speaks_another_version(line: &[u8]) -> bool {
    let is_method = words(line).next().is_some_and(|word| !word.is_empty() && word.iter().copied().all(is_token_byte));
    let rest_is_printable = line.strip_suffix(b"\r").unwrap_or(line).iter().all(|byte| !byte.is_ascii_control());
    let third = words(line).nth(2);
    let other = third.is_none_or(|version| version.starts_with(b"HTTP/") && !speaks_this_version(line));
    is_method && rest_is_printable && other && matches!(words(line).count(), 2 | 3)
}
