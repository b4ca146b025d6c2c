//! The pages Tidegate itself answers with: small, self-contained HTML, every value escaped.

/// What a block page tells about the request it stands in for.
#[derive(Clone, Copy, Debug, Default)]
pub struct BlockFacts<'a> {
    /// The URL asked for, or `host:port` of a tunnel.
    pub url: &'a str,
    /// The origin's host.
    pub host: &'a str,
    /// [`super::Denial::reason`].
    pub reason: &'a str,
    /// [`super::Denial::rule`].
    pub rule: &'a str,
    /// The host's categories, comma-joined.
    pub category: &'a str,
    /// The client's address.
    pub client: &'a str,
    /// The user, or empty.
    pub user: &'a str,
    /// The reference code: finds the record.
    pub reference: &'a str,
    /// NODE_NAME.
    pub node: &'a str,
}

/// A page ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The HTTP status.
    pub status: u16,
    /// The value of Content-Type.
    pub content_type: &'static str,
    /// The whole document.
    pub body: String,
}

/// A page of a title and paragraphs of plain text, for the proxy's own errors.
pub fn render(status: u16, title: &str, paragraphs: &[&str]) -> Page {
    let mut body = format!("<h1>{}</h1>", escape(title));
    paragraphs.iter().for_each(|text| body.push_str(&format!("<p>{}</p>", escape(text))));
    Page { status, content_type: "text/html; charset=utf-8", body }
}

/// `text` safe inside HTML elements and quoted attributes.
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            _ => safe.push(c),
        }
    }
    safe
}
