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

/// The title of a template that names none.
pub const BLOCKED_TITLE: &str = "This page is blocked";
/// The body of a template that has none.
pub const BLOCKED_BODY: &str = r#"<p class="url">{{url}}</p>
<p>It was not fetched: <strong>{{reason}}</strong>.</p>
<dl>
<dt>Rule</dt><dd>{{rule}}</dd>
<dt>Category</dt><dd>{{category}}</dd>
<dt>You</dt><dd>{{user}} {{client}}</dd>
<dt>Policy</dt><dd>{{snapshot}} on {{node}}</dd>
<dt>Reference</dt><dd><code>{{reference}}</code></dd>
</dl>
<p>If you need this page for your work, ask {{contact}} and quote the reference.</p>"#;

/// What may stand between double braces in a template's body.
pub const PLACEHOLDERS: [&str; 11] =
    ["url", "host", "reason", "rule", "category", "client", "user", "reference", "contact", "node", "snapshot"];

/// No scripts and nothing fetched: a block page must not be a way to track or to attack. Pictures of a template may come
/// over https.
const FRAME_TOP: &str = r#"<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data: https:">
<style>
:root{color-scheme:light dark;--ground:#f4f6f8;--card:#fff;--ink:#1c2733;--soft:#5a6b7b;--line:#d9e0e7;--mark:#0b6e8f}
@media (prefers-color-scheme:dark){:root{--ground:#10161c;--card:#18212a;--ink:#e6edf3;--soft:#9fb0bf;--line:#2c3945;--mark:#4fb3d4}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:16px/1.55 system-ui,sans-serif}
main{max-width:40rem;margin:8vh auto;padding:2rem;background:var(--card);border:1px solid var(--line);border-top:4px solid var(--mark);border-radius:8px}
h1{margin:0 0 1rem;font-size:1.5rem;line-height:1.25}
p,dd{overflow-wrap:anywhere}
.url{color:var(--soft);font-family:ui-monospace,monospace;font-size:.9rem}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.3rem 1rem;margin:1.5rem 0;padding:1rem 0;border:solid var(--line);border-width:1px 0}
dt{color:var(--soft)}dd{margin:0}
footer{margin-top:1.5rem;color:var(--soft);font-size:.85rem}
@media (max-width:44rem){main{margin:0;min-height:100vh;border-width:4px 0 0;border-radius:0;padding:1.25rem}}
@media (max-width:44rem){dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:.5rem}}
</style>
"#;

/// A page of a title and paragraphs of plain text, for the proxy's own errors.
pub fn render(status: u16, title: &str, paragraphs: &[&str]) -> Page {
    let mut body = String::new();
    for text in paragraphs {
        body.push_str("<p>");
        escape_into(text, &mut body);
        body.push_str("</p>\n");
    }
    framed(status, title, &body)
}

/// A template filled in. `contact` and `snapshot` come from the policy.
pub(super) fn fill(status: u16, title: &str, body: &str, facts: &BlockFacts, contact: &str, snapshot: &str) -> Page {
    let mut filled = String::with_capacity(body.len() + 512);
    let mut rest = body;
    while let Some((before, name, after)) = next_placeholder(rest) {
        filled.push_str(before);
        if let Some(value) = value_of(name, facts, contact, snapshot) {
            escape_into(value, &mut filled);
        }
        rest = after;
    }
    filled.push_str(rest);
    framed(status, title, &filled)
}

/// Names between double braces that are no placeholder.
pub(super) fn unknown_placeholders(body: &str) -> Vec<String> {
    let mut unknown = Vec::new();
    let mut rest = body;
    while let Some((_, name, after)) = next_placeholder(rest) {
        if !PLACEHOLDERS.contains(&name) {
            unknown.push(name.chars().take(40).collect());
        }
        rest = after;
    }
    unknown
}

/// `text` safe inside HTML elements and quoted attributes.
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    escape_into(text, &mut safe);
    safe
}

fn framed(status: u16, title: &str, body: &str) -> Page {
    let title = escape(title);
    let body = format!(
        "{FRAME_TOP}<title>{title}</title></head>\n<body><main><h1>{title}</h1>\n{body}\n<footer>Tidegate web gateway</footer></main></body></html>\n"
    );
    Page { status, content_type: "text/html; charset=utf-8", body }
}

fn next_placeholder(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = split_at_two(text, '{')?;
    let (name, after) = split_at_two(rest, '}')?;
    Some((before, name.trim(), after))
}

/// As `split_once` by the brace twice, which would prepare for a search anew each time: a denied request took twice the
/// instructions of one that is carried.
fn split_at_two(text: &str, brace: char) -> Option<(&str, &str)> {
    let at = text.match_indices(brace).map(|(at, _)| at).find(|at| text[at + 1..].starts_with(brace))?;
    Some((&text[..at], &text[at + 2..]))
}

fn value_of<'v>(name: &str, facts: &BlockFacts<'v>, contact: &'v str, snapshot: &'v str) -> Option<&'v str> {
    Some(match name {
        "url" => facts.url,
        "host" => facts.host,
        "reason" => facts.reason,
        "rule" => facts.rule,
        "category" => facts.category,
        "client" => facts.client,
        "user" => facts.user,
        "reference" => facts.reference,
        "contact" if contact.is_empty() => "your administrator",
        "contact" => contact,
        "node" => facts.node,
        "snapshot" => snapshot,
        _ => return None,
    })
}

fn escape_into(text: &str, safe: &mut String) {
    let mut kept = 0;
    for (at, byte) in text.bytes().enumerate() {
        let instead = match byte {
            b'&' => "&amp;",
            b'<' => "&lt;",
            b'>' => "&gt;",
            b'"' => "&quot;",
            b'\'' => "&#39;",
            _ => continue,
        };
        safe.push_str(&text[kept..at]);
        safe.push_str(instead);
        kept = at + 1; // these are ASCII, so both ends are between characters
    }
    safe.push_str(&text[kept..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_filled_with_escaped_values_once() {
        let facts = BlockFacts { url: "http://x/<script>?a=\"'&{{reason}}", reason: "no", ..BlockFacts::default() };
        let page = fill(451, "A & B", "<b>{{url}}</b> {{ reason }} {{contact}} {{snapshot}} {{", &facts, "", "3-abc");
        assert_eq!(page.status, 451);
        let escaped = "<b>http://x/&lt;script&gt;?a=&quot;&#39;&amp;{{reason}}</b> no your administrator 3-abc {{";
        assert!(page.body.contains(escaped), "{}", page.body);
        assert!(page.body.contains("<h1>A &amp; B</h1>") && !page.body.contains("<script"));
        assert!(unknown_placeholders(BLOCKED_BODY).is_empty());
        assert_eq!(unknown_placeholders("{{url}} {{urll}}"), ["urll"]);
        assert!(render(502, "<t>", &["<p>"]).body.contains("&lt;t&gt;"));
    }

    #[test]
    fn braces_and_escapes_are_found_wherever_they_stand() {
        for text in ["", "{", "{{", "a{{b", "{{{a}}}", "{ {{x}} }", "é{{ü}}ß", "}}{{", "{a{{b}c}}"] {
            for (brace, two) in [('{', "{{"), ('}', "}}")] {
                assert_eq!(split_at_two(text, brace), text.split_once(two), "{text}");
            }
        }
        assert_eq!(escape("<é>&'ü'\"ß\"&"), "&lt;é&gt;&amp;&#39;ü&#39;&quot;ß&quot;&amp;");
        assert_eq!(escape("plain ü"), "plain ü");
    }
}
