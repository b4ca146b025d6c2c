//! Why a request is refused, with the status and the words of the answer.

use std::fmt;

use super::body::FramingFault;
use super::target::AuthorityFault;

/// Why a request is refused: always the client's doing. After any of these the connection is closed, since nobody can
/// say where the next request starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// The request line is longer than [`crate::limits::REQUEST_LINE_BYTES_MAX`].
    LineTooLong,
    /// The head is longer than [`crate::limits::HEAD_BYTES_MAX`].
    HeadTooLarge,
    /// More fields than [`crate::limits::HEAD_FIELDS_MAX`].
    TooManyFields,
    /// Empty lines without end before the request.
    LeadingLines,
    /// The request line is not `method target version`.
    RequestLine,
    /// Neither HTTP/1.1 nor HTTP/1.0.
    Version,
    /// HEAD or CONNECT in other letters: whoever ignores case would frame the answer differently.
    MethodCase,
    /// A line ends in LF without CR.
    BareLineFeed,
    /// A field's value continues on the next line.
    Folded,
    /// A field's name is not a token, or white space stands before its colon.
    FieldName,
    /// NUL, a lone CR or another control byte in a field.
    ControlByte,
    /// HTTP/1.1 without Host.
    HostMissing,
    /// More than one Host.
    HostRepeated,
    /// Host is not a host with an optional port.
    HostMalformed,
    /// Host names another machine than the target.
    HostDiffers,
    /// A user name or password in the target.
    Userinfo,
    /// The target's host is no name and no address.
    TargetHost,
    /// The target's port is not 1 to 65535, or missing where it must stand.
    TargetPort,
    /// A byte that may not stand in a target, or a fragment.
    TargetBytes,
    /// The form of the target does not go with the method.
    TargetForm,
    /// A scheme this proxy does not speak.
    SchemeUnknown,
    /// Content-Length is not a number.
    LengthMalformed,
    /// Content-Length is beyond [`crate::limits::BODY_BYTES_MAX`].
    LengthTooLarge,
    /// An HTTP/1.0 POST or PUT that does not say how long its body is.
    LengthMissing,
    /// More than one Content-Length.
    LengthRepeated,
    /// Content-Length together with Transfer-Encoding.
    LengthWithCoding,
    /// A transfer coding other than chunked.
    CodingUnknown,
    /// Transfer-Encoding does not end in a single chunked.
    CodingMalformed,
    /// Transfer-Encoding in an HTTP/1.0 request.
    CodingInOldVersion,
    /// CONNECT with a body.
    ConnectWithBody,
    /// TRACE with a body.
    TraceWithBody,
    /// Max-Forwards of a TRACE or OPTIONS is not one number.
    MaxForwards,
    /// More than one Upgrade field.
    UpgradeRepeated,
    /// Connection names more than [`crate::limits::CONNECTION_OPTIONS_MAX`] options.
    TooManyOptions,
    /// An expectation other than 100-continue.
    Expectation,
}

impl RequestError {
    /// The status of the answer.
    pub fn status(self) -> u16 {
        match self {
            RequestError::LineTooLong => 414,
            RequestError::HeadTooLarge | RequestError::TooManyFields | RequestError::TooManyOptions => 431,
            RequestError::LengthMissing => 411,
            RequestError::LengthTooLarge => 413,
            RequestError::Version => 505,
            RequestError::SchemeUnknown | RequestError::CodingUnknown | RequestError::MethodCase => 501,
            RequestError::Expectation => 417,
            RequestError::LeadingLines
            | RequestError::RequestLine
            | RequestError::BareLineFeed
            | RequestError::Folded
            | RequestError::FieldName
            | RequestError::ControlByte
            | RequestError::HostMissing
            | RequestError::HostRepeated
            | RequestError::HostMalformed
            | RequestError::HostDiffers
            | RequestError::Userinfo
            | RequestError::TargetHost
            | RequestError::TargetPort
            | RequestError::TargetBytes
            | RequestError::TargetForm
            | RequestError::LengthMalformed
            | RequestError::LengthRepeated
            | RequestError::LengthWithCoding
            | RequestError::CodingMalformed
            | RequestError::CodingInOldVersion
            | RequestError::ConnectWithBody
            | RequestError::TraceWithBody
            | RequestError::MaxForwards
            | RequestError::UpgradeRepeated => 400,
        }
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RequestError::LineTooLong => "the request line is too long: shorten the address",
            RequestError::HeadTooLarge => {
                "the request's head is too large: send fewer or shorter fields (cookies, mostly)"
            }
            RequestError::TooManyFields => "the request has too many fields: send fewer",
            RequestError::LeadingLines => "there are empty lines where a request should start",
            RequestError::RequestLine => "the request line is not a method, a target and a version, one space apart",
            RequestError::Version => "the request is not HTTP/1.1 or HTTP/1.0: speak HTTP/1.1 to this proxy",
            RequestError::MethodCase => "methods are written in capital letters",
            RequestError::BareLineFeed => "a line of the head ends in LF without CR",
            RequestError::Folded => "a field's value continues on the next line, which is obsolete",
            RequestError::FieldName => "a field's name is not a token followed by a colon",
            RequestError::ControlByte => "a field holds NUL, a lone CR or another control byte",
            RequestError::HostMissing => "the Host field is missing",
            RequestError::HostRepeated => "there is more than one Host field",
            RequestError::HostMalformed => "the Host field is not a host with an optional port",
            RequestError::HostDiffers => "the Host field names another host or port than the target",
            RequestError::Userinfo => "the target holds a user name or password: send them in Authorization",
            RequestError::TargetHost => "the target's host is neither a name nor an address",
            RequestError::TargetPort => "the target's port is not a number from 1 to 65535",
            RequestError::TargetBytes => "the target holds a fragment or bytes that must be percent-encoded",
            RequestError::TargetForm => "the target's form does not go with the method",
            RequestError::SchemeUnknown => "the target's scheme is neither http nor https",
            RequestError::LengthMalformed => "Content-Length is not a number",
            RequestError::LengthTooLarge => "Content-Length is beyond what programs can count",
            RequestError::LengthMissing => "an HTTP/1.0 request of this method must say Content-Length",
            RequestError::LengthRepeated => "there is more than one Content-Length",
            RequestError::LengthWithCoding => "Content-Length stands together with Transfer-Encoding",
            RequestError::CodingUnknown => "a transfer coding other than chunked is not served",
            RequestError::CodingMalformed => "Transfer-Encoding does not end in a single chunked",
            RequestError::CodingInOldVersion => "Transfer-Encoding does not exist in HTTP/1.0",
            RequestError::ConnectWithBody => "CONNECT has no body",
            RequestError::TraceWithBody => "TRACE has no body",
            RequestError::MaxForwards => "Max-Forwards is not one number",
            RequestError::UpgradeRepeated => "there is more than one Upgrade field",
            RequestError::TooManyOptions => "the Connection field names too many options",
            RequestError::Expectation => "an expectation other than 100-continue cannot be met",
        })
    }
}

impl std::error::Error for RequestError {}

pub(super) fn target_fault(fault: AuthorityFault) -> RequestError {
    match fault {
        AuthorityFault::Userinfo => RequestError::Userinfo,
        AuthorityFault::Host => RequestError::TargetHost,
        AuthorityFault::Port => RequestError::TargetPort,
    }
}

pub(super) fn framing_fault(fault: FramingFault) -> RequestError {
    match fault {
        FramingFault::LengthMalformed => RequestError::LengthMalformed,
        FramingFault::LengthTooLarge => RequestError::LengthTooLarge,
        FramingFault::LengthRepeated => RequestError::LengthRepeated,
        FramingFault::LengthWithCoding => RequestError::LengthWithCoding,
        FramingFault::CodingUnknown => RequestError::CodingUnknown,
        FramingFault::CodingMalformed => RequestError::CodingMalformed,
        FramingFault::CodingInOldVersion => RequestError::CodingInOldVersion,
    }
}
