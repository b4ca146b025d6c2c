//! SOCKS5 as bytes (RFC 1928), with a name and a password (RFC 1929): what we say, and what the answers mean.

use super::credentials::Login;
use std::net::IpAddr;

/// Where the connection is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Destination<'a> {
    /// The parent resolves it.
    Name(&'a str),
    Address(IpAddr),
}

/// What an answer means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer<T> {
    /// More bytes are needed.
    Partial,
    /// It says this, and so many bytes long.
    Whole(T, usize),
}

/// Why the parent cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It does not speak SOCKS5.
    NotSocks,
    /// It wants another way of authentication than we offered.
    NoMethod,
    /// It did not accept name and password.
    Rejected,
}

/// How the parent wants us to authenticate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Nothing,
    Login,
}

/// The first message: which ways of authentication we have. Who has a login offers nothing else: a parent that would
/// take us without it is not the one meant.
pub(super) fn greeting(login: Option<&Login>) -> Vec<u8> {
    vec![5, 1, if login.is_some() { 2 } else { 0 }]
}

/// What the answer to the greeting says.
pub(super) fn method(bytes: &[u8]) -> Result<Answer<Method>, Fault> {
    match bytes {
        [5, 0, ..] => Ok(Answer::Whole(Method::Nothing, 2)),
        [5, 2, ..] => Ok(Answer::Whole(Method::Login, 2)),
        [5, _, ..] => Err(Fault::NoMethod),
        [] | [5] => Ok(Answer::Partial),
        _ => Err(Fault::NotSocks),
    }
}

/// Name and password.
pub(super) fn login(login: &Login) -> Vec<u8> {
    let mut message = vec![1, login.user.len() as u8];
    message.extend_from_slice(login.user.as_bytes());
    message.push(login.password.len() as u8);
    message.extend_from_slice(login.password.as_bytes());
    message
}

/// Whether they were accepted.
pub(super) fn logged_in(bytes: &[u8]) -> Result<Answer<()>, Fault> {
    match bytes {
        [_, 0, ..] => Ok(Answer::Whole((), 2)),
        [_, _, ..] => Err(Fault::Rejected),
        _ => Ok(Answer::Partial),
    }
}

/// The request for a connection.
pub(super) fn request(destination: Destination<'_>, port: u16) -> Vec<u8> {
    let mut message = vec![5, 1, 0];
    match destination {
        Destination::Name(name) => {
            // A host has at most 253 bytes (`limits::HOST_BYTES_MAX`).
            message.extend([3, name.len() as u8]);
            message.extend_from_slice(name.as_bytes());
        }
        Destination::Address(IpAddr::V4(v4)) => {
            message.push(1);
            message.extend(v4.octets());
        }
        Destination::Address(IpAddr::V6(v6)) => {
            message.push(4);
            message.extend(v6.octets());
        }
    }
    message.extend(port.to_be_bytes());
    message
}

/// The reply's code: 0 is a connection.
pub(super) fn reply(bytes: &[u8]) -> Result<Answer<u8>, Fault> {
    let whole = match bytes {
        [5, code, ..] if *code != 0 => return Ok(Answer::Whole(*code, bytes.len())),
        [5, _, _, 1, ..] => 4 + 4 + 2,
        [5, _, _, 4, ..] => 4 + 16 + 2,
        [5, _, _, 3, length, ..] => 4 + 1 + usize::from(*length) + 2,
        [] | [5] | [5, _] | [5, _, _] | [5, _, _, 3] => return Ok(Answer::Partial),
        _ => return Err(Fault::NotSocks),
    };
    Ok(if bytes.len() < whole { Answer::Partial } else { Answer::Whole(0, whole) })
}

/// A reply's code in words (RFC 1928 section 6).
pub(super) fn words(code: u8) -> &'static str {
    match code {
        2 => "its rules do not allow the connection",
        3 => "it has no route to the network",
        4 => "it cannot reach the host",
        5 => "the connection was refused",
        6 => "the connection's time to live ran out",
        7 => "it does not make connections",
        8 => "it does not know this kind of address",
        _ => "it failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_spelt_as_the_rfc_says() {
        let name = request(Destination::Name("a.test"), 443);
        assert_eq!(name, b"\x05\x01\x00\x03\x06a.test\x01\xbb");
        let v4 = request(Destination::Address("192.0.2.1".parse().unwrap()), 80);
        assert_eq!(v4, [5, 1, 0, 1, 192, 0, 2, 1, 0, 80]);
        assert_eq!(request(Destination::Address("::1".parse().unwrap()), 80).len(), 4 + 16 + 2);
        let secret = Login { user: "ann".into(), password: "pw".into() };
        assert_eq!(login(&secret), b"\x01\x03ann\x02pw");
        assert_eq!((greeting(None), greeting(Some(&secret))), (vec![5, 1, 0], vec![5, 1, 2]));
    }

    #[test]
    fn answers_are_read_however_they_are_cut() {
        let whole: [&[u8]; 3] = [
            &[5, 0, 0, 1, 1, 2, 3, 4, 0, 80],
            b"\x05\0\0\x03\x02ab\0\x50",
            &[5, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 80],
        ];
        for bytes in whole {
            for cut in 0..bytes.len() {
                assert_eq!(reply(&bytes[..cut]), Ok(Answer::Partial), "{bytes:?} cut at {cut}");
            }
            let mut behind = bytes.to_vec();
            behind.extend(b"early");
            assert_eq!(reply(&behind), Ok(Answer::Whole(0, bytes.len())));
        }
        assert_eq!(reply(&[5, 5, 0, 1]), Ok(Answer::Whole(5, 4)));
        for bytes in [&b"HTTP/1.1 400"[..], &[4, 0], &[5, 0, 0, 9]] {
            assert_eq!(reply(bytes), Err(Fault::NotSocks), "{bytes:?}");
        }
        assert_eq!(method(&[5]), Ok(Answer::Partial));
        assert_eq!(method(&[5, 0]), Ok(Answer::Whole(Method::Nothing, 2)));
        assert_eq!(method(&[5, 2]), Ok(Answer::Whole(Method::Login, 2)));
        assert_eq!(method(&[5, 255]), Err(Fault::NoMethod));
        assert_eq!(method(b"HT"), Err(Fault::NotSocks));
        assert_eq!(logged_in(&[1, 0]), Ok(Answer::Whole((), 2)));
        assert_eq!(logged_in(&[1, 1]), Err(Fault::Rejected));
    }
}
