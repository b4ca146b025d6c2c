//! A question to Explain, taken apart as the proxy would see the request.

use crate::admin::ExplainQuestion;
use crate::admin::Refused;
use crate::base::clock::Wall;
use crate::policy::Facts;
use crate::policy::NoHeaders;
use crate::policy::Scheme;
use hyper::Uri;
use std::net::IpAddr;

/// A request to be explained, taken apart.
pub struct Asked {
    client: IpAddr,
    method: String,
    scheme: Scheme,
    host: String,
    port: u16,
    path: String,
    now: Wall,
}

impl Asked {
    /// Takes it apart as the proxy would see the request.
    pub fn of(question: &ExplainQuestion) -> Result<Asked, Refused> {
        let client: IpAddr = question.client.trim().parse().map_err(|_| {
            Refused::invalid(format!("client `{}` is not an IP address, such as 10.1.2.3 or fd00::7", question.client))
        })?;
        let now = match &question.at {
            None => Wall::now(),
            Some(at) => at.trim().parse::<jiff::Timestamp>().map(|at| Wall(at.as_microsecond())).map_err(|_| {
                Refused::invalid(format!(
                    "time `{at}` is not RFC 3339, such as 2026-11-20T12:30:00Z or 2026-11-20T12:30:00+01:00"
                ))
            })?,
        };
        let method = question.method.clone().unwrap_or_else(|| "GET".to_string());
        let url = question.url.trim();
        let not_a_url = || {
            Refused::invalid(format!(
                "url `{url}` is not one, such as http://example.com/path; for CONNECT: example.com:443"
            ))
        };
        let uri: Uri = url.parse().map_err(|_| not_a_url())?;
        let host = uri.host().ok_or_else(not_a_url)?;
        let host = host.trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase();
        let (scheme, port) = match (method.as_str(), uri.scheme_str()) {
            ("CONNECT", _) => (Scheme::Tunnel, uri.port_u16().unwrap_or(443)),
            (_, Some("http")) => (Scheme::Http, uri.port_u16().unwrap_or(80)),
            // What a browser does with an https URL: it asks the proxy for a tunnel.
            (_, Some("https")) => (Scheme::Tunnel, uri.port_u16().unwrap_or(443)),
            _ => return Err(not_a_url()),
        };
        let tunnel = scheme == Scheme::Tunnel;
        let path =
            if tunnel { String::new() } else { uri.path_and_query().map_or("/".into(), |path| path.to_string()) };
        let method = if tunnel { "CONNECT".to_string() } else { method };
        Ok(Asked { client, method, scheme, host, port, path, now })
    }

    /// What the walk decides by.
    pub fn facts<'a>(&'a self, user: Option<&'a str>, node: &'a str) -> Facts<'a> {
        Facts {
            client: self.client,
            user,
            method: &self.method,
            scheme: self.scheme,
            host: &self.host,
            port: self.port,
            path: &self.path,
            headers: &NoHeaders,
            now: self.now,
            node,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_taken_apart_as_the_proxy_would_see_the_request() {
        let question = |method: Option<&str>, url: &str| ExplainQuestion {
            client: "10.0.0.1".into(),
            user: None,
            method: method.map(str::to_string),
            url: url.into(),
            at: None,
            document: None,
            version: None,
        };
        let table = [
            (None, "http://Example.COM./a?b", Some((Scheme::Http, "example.com", 80, "/a?b"))),
            (None, "http://example.com", Some((Scheme::Http, "example.com", 80, "/"))),
            (None, "https://example.com/secret", Some((Scheme::Tunnel, "example.com", 443, ""))),
            (Some("CONNECT"), "example.com:8443", Some((Scheme::Tunnel, "example.com", 8443, ""))),
            (None, "http://[::1]:8080/x", Some((Scheme::Http, "::1", 8080, "/x"))),
            (None, "ftp://example.com/", None),
            (None, "just words", None),
            (None, "", None),
        ];
        for (method, url, expected) in table {
            let asked = Asked::of(&question(method, url)).ok();
            let seen = asked.as_ref().map(|a| (a.scheme, a.host.as_str(), a.port, a.path.as_str()));
            assert_eq!(seen, expected, "{url}");
        }
    }
}
