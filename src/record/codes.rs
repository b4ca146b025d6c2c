//! The short codes of a record: how it ended, how it was answered, where the answer came from.

use std::fmt;

/// Defines an enum whose variants have a code in the log and a byte in the spool.
macro_rules! coded {
    ($(#[$about:meta])* $name:ident: $code:ty { $($(#[$doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
        pub enum $name { #[default] $($(#[$doc])* $variant,)+ }

        impl $name {
            /// Every value, in the order of their bytes.
            pub const ALL: &'static [$name] = &[$($name::$variant,)+];

            /// The code as the log writes it.
            pub fn code(self) -> $code {
                match self { $($name::$variant => $text,)+ }
            }

            /// The value's byte in the spool.
            pub fn byte(self) -> u8 {
                self as u8
            }

            /// The value of a byte from the spool; the default for a byte no value has.
            pub fn from_byte(byte: u8) -> $name {
                Self::ALL.get(byte as usize).copied().unwrap_or_default()
            }
        }
    };
}

coded! {
    /// Who ended an exchange: the first letter of an ending, after HAProxy's termination state.
    By: char {
        /// It ran to its natural end.
        Nobody = '-',
        /// The client closed, reset or broke the protocol.
        Client = 'C',
        /// The origin or parent proxy closed, reset, refused or broke the protocol.
        Server = 'S',
        /// Policy denied it.
        Policy = 'P',
        /// The node answered it itself, as it should (its own pages, a refusal as master).
        Local = 'L',
        /// A resource of the node was exhausted (connections, descriptors, spool).
        Resource = 'R',
        /// The node made an error of its own.
        Internal = 'I',
        /// The node was killed or stopped meanwhile.
        Killed = 'K',
        /// The client let its time run out.
        ClientTimeout = 'c',
        /// The origin or parent proxy let its time run out.
        ServerTimeout = 's',
    }
}

coded! {
    /// The phase an exchange was in when it ended: the second letter.
    Phase: char {
        /// It was complete.
        Complete = '-',
        /// Waiting for, or reading, the request.
        Request = 'R',
        /// Waiting for a connection slot upstream.
        Queue = 'Q',
        /// Resolving the name or connecting upstream.
        Connect = 'C',
        /// Waiting for the answer's head.
        Headers = 'H',
        /// Transferring the body, or a tunnel's bytes.
        Data = 'D',
        /// The server had finished; the last bytes were on their way to the client.
        Last = 'L',
    }
}

/// Who ended an exchange and in which phase; `--` is the natural end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
pub struct Ending {
    /// Who.
    pub by: By,
    /// In which phase.
    pub phase: Phase,
}

impl Ending {
    /// The natural end.
    pub const COMPLETE: Ending = Ending { by: By::Nobody, phase: Phase::Complete };
    /// Denied by policy when the request had been read.
    pub const DENIED: Ending = Ending { by: By::Policy, phase: Phase::Request };
    /// A record was dropped without a close: an error of ours, in the data phase.
    pub const DROPPED: Ending = Ending { by: By::Internal, phase: Phase::Data };

    /// `by` ended it in `phase`.
    pub const fn new(by: By, phase: Phase) -> Ending {
        Ending { by, phase }
    }

    /// Still running, in `phase`.
    pub const fn running(phase: Phase) -> Ending {
        Ending { by: By::Nobody, phase }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.by.code(), self.phase.code())
    }
}

coded! {
    /// How an exchange was answered: the column `cachecode`, in the incumbent's words.
    CacheCode: &'static str {
        /// Not answered.
        None = "NONE",
        /// Fetched.
        Miss = "TCP_MISS",
        /// From the cache.
        Hit = "TCP_HIT",
        /// Revalidated; it had changed.
        RefreshMiss = "TCP_REFRESH_MISS",
        /// Revalidated; it had not changed.
        RefreshHit = "TCP_REFRESH_HIT",
        /// Revalidation failed, the stale copy was served.
        RefreshFailHit = "TCP_REF_FAIL_HIT",
        /// The client asked for a fresh copy.
        ClientRefresh = "TCP_CLIENT_REFRESH",
        /// Conditional request, fetched.
        ImsMiss = "TCP_IMS_MISS",
        /// Conditional request, answered from the cache.
        ImsHit = "TCP_IMS_HIT",
        /// Denied by policy.
        Denied = "TCP_DENIED",
        /// The host's name did not resolve.
        DnsFailed = "TCP_DNS_FAILED",
        /// No address of the host accepted a connection.
        ConnectionFailed = "TCP_CONNECTION_FAILED",
        /// No route to the host.
        ConnectionNoRoute = "TCP_CONNECTION_NOROUTE",
        /// An opaque tunnel.
        Tunnel = "TCP_TUNNEL",
        /// Given up half-way.
        Aborted = "TCP_ABORTED",
        /// Somebody's time ran out.
        Timeout = "TCP_TIMEOUT",
        /// TLS with the origin failed.
        SslFailed = "TCP_SSL_FAILED",
        /// Authentication failed.
        AuthFailed = "TCP_AUTH_FAILED",
        /// Authentication was required and absent.
        AuthAbsent = "TCP_AUTH_ABSENT",
        /// The node could not bind an address of its own.
        BindFailed = "TCP_BIND_FAILED",
        /// The origin's answer was not valid.
        InvalidResponse = "TCP_INVALID_RESPONSE",
        /// Denied for its cookies.
        DeniedCookies = "TCP_DENIED_COOKIES",
        /// The origin's certificate was not valid.
        InvalidSslCert = "TCP_INVALID_SSL_CERT",
        /// The node failed.
        SystemError = "TCP_SYSTEM_ERROR",
        /// A WebSocket denied.
        DeniedWebsocket = "TCP_DENIED_WEBSOCKET",
        /// A WebSocket.
        Websocket = "TCP_WEBSOCKET",
        /// A TLS handshake with the client.
        SslHandshake = "TCP_SSL_HANDSHAKE",
        /// A page of the node itself.
        Interface = "TCP_INTERFACE",
    }
}

coded! {
    /// Where the answer came from: the column `peercode`, in Squid's hierarchy words.
    PeerCode: &'static str {
        /// Nobody was asked.
        None = "NONE",
        /// The origin itself.
        Direct = "DIRECT",
        /// A parent proxy.
        Parent = "PARENT_HIT",
    }
}
