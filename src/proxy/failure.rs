//! What can go wrong before an answer has begun: one match turns it into an answer that names who is to blame and what
//! to do.

use super::connection::Fault;
use super::upstream::OpenError;
use crate::policy::Denial;
use crate::record::By;
use crate::record::CacheCode;
use crate::record::Ending;
use crate::record::Phase;
use crate::wire::http1::ChunkedError;
use crate::wire::http1::ReplyError;
use crate::wire::http1::RequestError;
use std::io;

/// Why an exchange is not answered by its origin.
#[derive(Debug)]
pub(super) enum Failure {
    /// The request's head is not one we accept.
    Malformed(RequestError),
    /// The head did not come in time.
    SlowHead,
    /// A request as for an origin: to us, who are a proxy.
    NotToAProxy,
    /// An https URL as a plain request: its content would have to be decrypted somewhere.
    NeedsTunnel,
    /// It has been here before.
    Circle,
    /// This node is a master.
    Master(String),
    /// Policy said no.
    Denied(Denial),
    /// The protocol change asked for is not allowed.
    Upgrade(String),
    /// No connection to the origin.
    Open(OpenError),
    /// The parent proxy of this name does not accept our credentials.
    ParentRejects(String),
    /// The origin closed without an answer, or took nothing of the request.
    OriginGone,
    /// The origin closed in the middle of its answer's head.
    ReplyCut,
    /// The origin did not answer in time.
    OriginSilent,
    /// The origin's answer is not one we accept.
    BadReply(ReplyError),
    /// The body of the origin's answer is not what its head says.
    BadReplyBody(ChunkedError),
    /// More interim replies than anybody needs.
    EndlessInterim,
    /// The request's body did not come in time.
    SlowBody,
    /// The request's body is not what its head says.
    BadBody(ChunkedError),
    /// The client went away in this phase: nobody is left to answer.
    ClientGone(Phase),
    /// The exchange took all the time one may take, and was then in this phase.
    TooLong(Phase),
    /// No record can be opened.
    NoRecord,
}

/// How a failure is answered and recorded.
pub(super) struct Verdict {
    /// 0 if there is nobody to answer.
    pub(super) status: u16,
    pub(super) ending: Ending,
    pub(super) cachecode: CacheCode,
    /// The error type of RFC 9209.
    pub(super) error: &'static str,
    pub(super) title: &'static str,
    pub(super) words: String,
    /// The log's filter_name, where something of ours refused.
    pub(super) filter: &'static str,
    /// Where the next request starts is unknown, or reading on is of no use.
    pub(super) close: bool,
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Failure {
        Failure::Open(error)
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Failure {
        match fault {
            Fault::Gone => Failure::ClientGone(Phase::Request),
            Fault::Slow => Failure::SlowHead,
            Fault::Malformed(error) => Failure::Malformed(error),
        }
    }
}

impl Failure {
    /// The one place where an error becomes an answer.
    pub(super) fn verdict(&self) -> Verdict {
        let by_client = |status, phase, cachecode, error, title, words: String| Verdict {
            close: true,
            ..verdict(status, By::Client, phase, cachecode, error, title, words)
        };
        match self {
            Failure::Malformed(error) => by_client(
                error.status(),
                Phase::Request,
                CacheCode::None,
                "http_request_error",
                "Your request was not understood",
                format!("{}. The program that sent it has to be corrected.", capital(&error.to_string())),
            ),
            Failure::SlowHead => Verdict {
                ending: Ending::new(By::ClientTimeout, Phase::Request),
                ..by_client(
                    408,
                    Phase::Request,
                    CacheCode::Timeout,
                    "http_request_error",
                    "Your request did not arrive in time",
                    "The proxy waited for the whole head of the request. Try again; if it happens often, look at the \
                     network between you and the proxy."
                        .to_string(),
                )
            },
            Failure::NotToAProxy => by_client(
                400,
                Phase::Request,
                CacheCode::None,
                "http_request_error",
                "This is a proxy",
                "The request was made as to a web site. Enter this address and port as the HTTP proxy of your program, \
                 and ask for the site itself."
                    .to_string(),
            ),
            Failure::NeedsTunnel => by_client(
                501,
                Phase::Request,
                CacheCode::None,
                "http_request_error",
                "Encrypted sites need a tunnel",
                "An https URL was asked for in plain. Programs ask a proxy for encrypted sites with the method CONNECT."
                    .to_string(),
            ),
            Failure::Circle => verdict(
                508,
                By::Local,
                Phase::Request,
                CacheCode::None,
                "proxy_loop_detected",
                "The request goes in a circle",
                "It has passed this proxy before. Some proxy on its way sends it back here: check the parents and \
                 redirections that point to this node."
                    .to_string(),
            ),
            Failure::Master(words) => Verdict {
                filter: "role",
                ..verdict(
                    403,
                    By::Local,
                    Phase::Request,
                    CacheCode::Denied,
                    "http_request_denied",
                    "This node carries no traffic",
                    words.clone(),
                )
            },
            // The page and the words of a denial are the policy's; see `answer`.
            Failure::Denied(_) => verdict(
                403,
                By::Policy,
                Phase::Request,
                CacheCode::Denied,
                "http_request_denied",
                "Blocked by policy",
                String::new(),
            ),
            Failure::Upgrade(protocol) => Verdict {
                filter: "upgrade",
                ..verdict(
                    403,
                    By::Policy,
                    Phase::Request,
                    if protocol.eq_ignore_ascii_case("websocket") {
                        CacheCode::DeniedWebsocket
                    } else {
                        CacheCode::Denied
                    },
                    "http_request_denied",
                    "Changing the protocol is not allowed",
                    format!(
                        "The request asks to go on as {protocol}, and no rule of the policy allows that for it. An \
                         administrator can allow it in the policy ([network] allow_upgrade)."
                    ),
                )
            },
            Failure::Open(error) => open_verdict(error),
            Failure::ParentRejects(parent) => Verdict {
                filter: "parents",
                ..verdict(
                    502,
                    By::Server,
                    Phase::Headers,
                    CacheCode::AuthFailed,
                    "proxy_configuration_error",
                    "The next proxy does not accept this one",
                    format!(
                        "The parent proxy {parent} asks for credentials, and does not accept those of this node. An \
                         administrator has to correct them ([[parents]] credentials, and the file of that name)."
                    ),
                )
            },
            Failure::OriginGone => verdict(
                502,
                By::Server,
                Phase::Headers,
                CacheCode::Aborted,
                "connection_terminated",
                "The site closed the connection",
                "The site closed its connection before it had answered. Try again; if it persists, the site has a fault."
                    .to_string(),
            ),
            Failure::ReplyCut => verdict(
                502,
                By::Server,
                Phase::Headers,
                CacheCode::Aborted,
                "http_response_incomplete",
                "The site closed the connection",
                "The site closed its connection in the middle of its answer. Try again; if it persists, the site has a \
                 fault."
                    .to_string(),
            ),
            Failure::OriginSilent => verdict(
                504,
                By::ServerTimeout,
                Phase::Headers,
                CacheCode::Timeout,
                "http_response_timeout",
                "The site does not answer",
                "The site accepted the request and did not answer in time. Try again later.".to_string(),
            ),
            Failure::BadReply(error) => verdict(
                502,
                By::Server,
                Phase::Headers,
                CacheCode::InvalidResponse,
                reply_error_type(*error),
                "The site's answer is not valid",
                format!("{}. Passing it on would be unsafe; the site has to be corrected.", capital(&error.to_string())),
            ),
            Failure::BadReplyBody(error) => verdict(
                502,
                By::Server,
                Phase::Data,
                CacheCode::InvalidResponse,
                reply_body_error_type(*error),
                "The site's answer is not valid",
                format!("{}. Passing it on would be unsafe; the site has to be corrected.", capital(&error.to_string())),
            ),
            Failure::EndlessInterim => verdict(
                502,
                By::Server,
                Phase::Headers,
                CacheCode::InvalidResponse,
                "http_protocol_error",
                "The site's answer is not valid",
                "The site sends interim answers without end. The site has to be corrected.".to_string(),
            ),
            Failure::SlowBody => Verdict {
                ending: Ending::new(By::ClientTimeout, Phase::Data),
                ..by_client(
                    408,
                    Phase::Data,
                    CacheCode::Timeout,
                    "http_request_error",
                    "Your request did not arrive in time",
                    "The proxy waited for the rest of the request's body. Try again.".to_string(),
                )
            },
            Failure::BadBody(error) => by_client(
                400,
                Phase::Data,
                CacheCode::None,
                "http_request_error",
                "Your request was not understood",
                format!("{}. The program that sent it has to be corrected.", capital(&error.to_string())),
            ),
            Failure::ClientGone(phase) => by_client(
                0,
                *phase,
                CacheCode::Aborted,
                "connection_terminated",
                "",
                "the client closed the connection".to_string(),
            ),
            Failure::TooLong(phase) => Verdict {
                close: true,
                ..verdict(
                    504,
                    By::Local,
                    *phase,
                    CacheCode::Timeout,
                    "http_response_timeout",
                    "The exchange took too long",
                    "It lasted as long as an exchange may last on this proxy (TOTAL_TIME). Ask for less at once, or tell \
                     your administrator."
                        .to_string(),
                )
            },
            Failure::NoRecord => Verdict {
                close: true,
                ..verdict(
                    503,
                    By::Resource,
                    Phase::Request,
                    CacheCode::SystemError,
                    "proxy_internal_error",
                    "The proxy cannot keep its log",
                    "Nothing is served that cannot be recorded, and this node's log takes no more records at the moment \
                     (is its disk full, or are too many requests under way?). Try again shortly, and tell your administrator."
                        .to_string(),
                )
            },
        }
    }
}

fn open_verdict(error: &OpenError) -> Verdict {
    let failed = |status, by, cachecode, error_type, title, advice: &str| {
        verdict(
            status,
            by,
            Phase::Connect,
            cachecode,
            error_type,
            title,
            format!("{}: {advice}", capital(&error.to_string())),
        )
    };
    let again = "try again later; if it persists, the site or the network to it has a fault.";
    match error {
        OpenError::NoSuchHost => failed(
            502,
            By::Server,
            CacheCode::DnsFailed,
            "dns_error",
            "The site was not found",
            "check the spelling of the address.",
        ),
        OpenError::Resolve(_) => failed(
            502,
            By::Server,
            CacheCode::DnsFailed,
            "dns_error",
            "The site's name could not be resolved",
            "try again; if it persists, the proxy's name servers (/etc/resolv.conf) need a look.",
        ),
        OpenError::ResolveTimeout => failed(
            504,
            By::ServerTimeout,
            CacheCode::DnsFailed,
            "dns_timeout",
            "The site's name could not be resolved",
            "try again; if it persists, the proxy's name servers (/etc/resolv.conf) need a look.",
        ),
        OpenError::Destination(..) => Verdict {
            filter: "destination",
            ..failed(
                403,
                By::Policy,
                CacheCode::Denied,
                "destination_ip_prohibited",
                "This address is not for the proxy's clients",
                "an administrator can allow it in the policy ([network] allow_destinations).",
            )
        },
        OpenError::NoParent(..) => Verdict {
            filter: "parents",
            ..failed(
                503,
                By::Server,
                CacheCode::ConnectionFailed,
                "destination_unavailable",
                "The next proxy cannot be reached",
                "try again shortly; if it persists, the parent proxies of the policy ([[parents]]) need a look.",
            )
        },
        OpenError::ParentRefused(..) | OpenError::ParentMute(_) => failed(
            502,
            By::Server,
            CacheCode::ConnectionFailed,
            "destination_unavailable",
            "The site cannot be reached",
            again,
        ),
        OpenError::ParentSilent(_) => failed(
            504,
            By::ServerTimeout,
            CacheCode::Timeout,
            "connection_timeout",
            "The site cannot be reached",
            again,
        ),
        OpenError::Source(_) => Verdict {
            filter: "routes",
            ..failed(
                503,
                By::Resource,
                CacheCode::BindFailed,
                "proxy_configuration_error",
                "The proxy cannot use the address it should",
                "an administrator has to give the node that address or to correct the policy ([[routes]] source).",
            )
        },
        OpenError::Connect(_, error) => match error.kind() {
            io::ErrorKind::TimedOut => failed(
                504,
                By::ServerTimeout,
                CacheCode::Timeout,
                "connection_timeout",
                "The site cannot be reached",
                again,
            ),
            io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => failed(
                502,
                By::Server,
                CacheCode::ConnectionNoRoute,
                "destination_ip_unroutable",
                "The site cannot be reached",
                "the proxy has no route there; if it persists, the proxy's network needs a look.",
            ),
            io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => {
                failed(
                    502,
                    By::Server,
                    CacheCode::ConnectionFailed,
                    "connection_refused",
                    "The site refused the connection",
                    again,
                )
            }
            // Descriptors, memory, local ports: our own want.
            _ => failed(
                503,
                By::Resource,
                CacheCode::SystemError,
                "proxy_internal_error",
                "The proxy could not open a connection",
                "try again; if it persists, the proxy's limits (MAX_FDS) need a look.",
            ),
        },
    }
}

/// RFC 9209 section 2.3 knows more precise types for some faults of a reply.
fn reply_error_type(error: ReplyError) -> &'static str {
    match error {
        ReplyError::HeadTooLarge | ReplyError::TooManyFields => "http_response_header_section_size",
        ReplyError::CodingUnknown | ReplyError::CodingMalformed | ReplyError::CodingInOldVersion => {
            "http_response_transfer_coding"
        }
        ReplyError::SwitchWithoutUpgrade => "http_upgrade_failed",
        ReplyError::LengthTooLarge => "http_response_body_size",
        ReplyError::StatusLine
        | ReplyError::Version
        | ReplyError::BareLineFeed
        | ReplyError::Folded
        | ReplyError::FieldName
        | ReplyError::ControlByte
        | ReplyError::LengthMalformed
        | ReplyError::LengthRepeated
        | ReplyError::LengthWithCoding
        | ReplyError::TooManyOptions => "http_protocol_error",
    }
}

fn reply_body_error_type(error: ChunkedError) -> &'static str {
    match error {
        ChunkedError::TrailerTooLong => "http_response_trailer_section_size",
        ChunkedError::Size
        | ChunkedError::SizeOverflow
        | ChunkedError::ExtensionTooLong
        | ChunkedError::LineEnd
        | ChunkedError::DataEnd
        | ChunkedError::Trailer
        | ChunkedError::TrailerForbidden => "http_response_transfer_coding",
    }
}

fn verdict(
    status: u16,
    by: By,
    phase: Phase,
    cachecode: CacheCode,
    error: &'static str,
    title: &'static str,
    words: String,
) -> Verdict {
    Verdict { status, ending: Ending::new(by, phase), cachecode, error, title, words, filter: "", close: false }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}
