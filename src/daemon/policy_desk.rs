//! Policy at the desk: check, diff, apply, roll back, show, explain. On a slave all but changing.

use super::publish::Publisher;
use crate::admin::Complaint;
use crate::admin::ExplainQuestion;
use crate::admin::Outcome;
use crate::admin::PolicyText;
use crate::admin::PolicyVersion;
use crate::admin::Refused;
use crate::admin::RefusedKind;
use crate::base::clock::Wall;
use crate::limits::POLICY_LOG_ROWS_MAX;
use crate::policy;
use crate::policy::Facts;
use crate::policy::Folder;
use crate::policy::NoHeaders;
use crate::policy::Scheme;
use crate::policy::Snapshot;
use crate::policy::Verdict;
use crate::store::policies::AppendError;
use crate::store::policies::NewVersion;
use crate::store::policies::Policies;
use crate::store::policies::Stored;
use hyper::Uri;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// Policy as this node may handle it.
pub struct PolicyDesk {
    publisher: Arc<Publisher>,
    /// The history; none on a slave.
    policies: Option<Arc<Policies>>,
    /// LISTS_DIR: the files that documents name.
    lists_dir: PathBuf,
    /// Who the master is, for a slave's words.
    master: String,
    /// When and whence a slave got what it enforces, in words.
    origin: Box<dyn Fn() -> String + Send + Sync>,
    /// One change at a time: a version's number is known before it is compiled.
    changing: tokio::sync::Mutex<()>,
}

impl PolicyDesk {
    /// The desk of a node that writes policy (`policies`), or of a slave of `master`.
    pub fn new(
        publisher: Arc<Publisher>,
        policies: Option<Arc<Policies>>,
        lists_dir: PathBuf,
        master: String,
        origin: Box<dyn Fn() -> String + Send + Sync>,
    ) -> Self {
        PolicyDesk { publisher, policies, lists_dir, master, origin, changing: tokio::sync::Mutex::new(()) }
    }

    /// The document of `version`, or the one in force.
    pub fn show(&self, version: Option<u64>) -> Result<Outcome, Refused> {
        let current = self.publisher.current();
        let Some(version) = version.filter(|version| *version != current.version()) else {
            return Ok(Outcome::Policy(PolicyText {
                version: current.version(),
                snapshot: current.name().to_string(),
                document: current.document().to_string(),
                origin: (self.origin)(),
            }));
        };
        let stored = self.stored(version)?;
        Ok(Outcome::Policy(PolicyText {
            version,
            snapshot: stored.version.snapshot,
            document: stored.document,
            origin: String::new(),
        }))
    }

    /// Everything wrong with `document`.
    pub async fn check(&self, document: &str) -> Result<Outcome, Refused> {
        Ok(Outcome::Checked { complaints: self.compile(document, 1).await?.err().unwrap_or_default() })
    }

    /// What `document` would change.
    pub async fn diff(&self, document: &str) -> Result<Outcome, Refused> {
        let complaints = self.compile(document, 1).await?.err().unwrap_or_default();
        Ok(Outcome::Diff { text: policy::diff(self.publisher.current().document(), document), complaints })
    }

    /// Compiles, stores, publishes.
    pub async fn apply(
        &self,
        author: &str,
        document: &str,
        comment: &str,
        base: Option<u64>,
    ) -> Result<Outcome, Refused> {
        let policies = self.writable()?;
        let _turn = self.changing.lock().await;
        let current = self.publisher.current();
        if base.is_some_and(|base| base != current.version()) {
            return Err(self.conflict(&policies, base));
        }
        if self.is_in_force(&current, document).await? {
            let (version, snapshot) = (current.version(), current.name().to_string());
            return Ok(Outcome::Applied { version, snapshot, changed: false });
        }
        let version = policies.next_version().map_err(|error| Refused::failed(error.0))?;
        let bytes = self.compile(document, version).await?.map_err(|complaints| Refused {
            kind: RefusedKind::Invalid,
            words: format!("the document has {} fault(s); nothing was changed", complaints.len()),
            complaints,
        })?;
        let snapshot = Snapshot::open(&bytes)
            .map_err(|error| Refused::failed(format!("checking the snapshot that was just compiled: {error}")))?;
        let name = snapshot.name().to_string();
        let hash = hex(&snapshot.hash());
        let mut conflict = None;
        let keep = || {
            let new = NewVersion {
                version,
                snapshot: &name,
                hash: &hash,
                bytes: &bytes,
                document,
                author,
                comment,
                applied_us: Wall::now().0,
                base,
            };
            policies.append(&new).map_err(|error| {
                let words = error.to_string();
                conflict = matches!(error, AppendError::Conflict { .. }).then(|| words.clone());
                words
            })
        };
        let published = self.publisher.publish(Arc::new(snapshot), keep).await;
        if let Some(words) = conflict {
            return Err(Refused { kind: RefusedKind::Conflict, words, complaints: Vec::new() });
        }
        published
            .map_err(|words| Refused::failed(format!("applying policy {name}: {words}; see `tidegate status`")))?;
        tracing::info!(event = "policy-in-force", snapshot = %name, administrator = %author, "policy {name} by {author} is in force");
        Ok(Outcome::Applied { version, snapshot: name, changed: true })
    }

    /// The history, newest first.
    pub fn log(&self, limit: u32) -> Result<Outcome, Refused> {
        let current = self.publisher.current().version();
        let policies = self.policies.as_ref().ok_or_else(|| {
            Refused::wrong_role(format!("this node is a slave: the history of policy is on its master {}", self.master))
        })?;
        let versions = policies.log(limit.min(POLICY_LOG_ROWS_MAX)).map_err(|error| Refused::failed(error.0))?;
        let row = |version: crate::store::policies::Version| PolicyVersion {
            current: version.version == current,
            version: version.version,
            snapshot: version.snapshot,
            applied_us: version.applied_us,
            author: version.author,
            comment: version.comment,
        };
        Ok(Outcome::History { versions: versions.into_iter().map(row).collect() })
    }

    /// Applies the document of an older version as a new one.
    pub async fn rollback(&self, author: &str, to: u64, comment: &str) -> Result<Outcome, Refused> {
        self.writable()?;
        let document = self.stored(to)?.document;
        let comment = match comment.is_empty() {
            true => format!("rollback to version {to}"),
            false => format!("rollback to version {to}: {comment}"),
        };
        self.apply(author, &document, &comment, None).await
    }

    /// The walk that decides, told.
    pub async fn explain(&self, question: &ExplainQuestion, node: &str) -> Result<Outcome, Refused> {
        let snapshot = match &question.document {
            None => self.publisher.current(),
            Some(document) => {
                let bytes = self.compile(document, 1).await?.map_err(|complaints| Refused {
                    kind: RefusedKind::Invalid,
                    words: "the document to explain by has faults".into(),
                    complaints,
                })?;
                Arc::new(Snapshot::open(&bytes).map_err(|error| Refused::failed(error.to_string()))?)
            }
        };
        let asked = Asked::of(question)?;
        let facts = asked.facts(question.user.as_deref(), node);
        let (decision, lines) = policy::explain(&snapshot, &facts);
        let (verdict, rule) = match &decision.verdict {
            Verdict::Permit(permit) => ("ALLOW", permit.rule(&snapshot)),
            Verdict::Deny(denial) => ("DENY", denial.rule(&snapshot)),
        };
        Ok(Outcome::Explained { verdict: verdict.to_string(), rule: rule.to_string(), lines })
    }

    /// Compiling takes as long as the lists are: never on a thread that others wait for.
    async fn compile(&self, document: &str, version: u64) -> Result<Result<Vec<u8>, Vec<Complaint>>, Refused> {
        let (document, files) = (document.to_string(), Folder::new(&self.lists_dir));
        tokio::task::spawn_blocking(move || policy::compile(&document, version, &files))
            .await
            .map_err(|error| Refused::failed(format!("compiling the document: {error}; this is a bug of Tidegate's")))
    }

    /// Whether `document` is the one in force, and the list files it names still say what they said.
    async fn is_in_force(&self, current: &Snapshot, document: &str) -> Result<bool, Refused> {
        if current.version() == 0 || current.document() != document {
            return Ok(false);
        }
        let again = self.compile(document, current.version()).await?.ok().and_then(|bytes| Snapshot::open(&bytes).ok());
        Ok(again.is_some_and(|again| again.hash() == current.hash()))
    }

    fn writable(&self) -> Result<Arc<Policies>, Refused> {
        self.policies.clone().ok_or_else(|| {
            Refused::wrong_role(format!("this node is a slave: policy is changed on its master {} only", self.master))
        })
    }

    fn stored(&self, version: u64) -> Result<Stored, Refused> {
        let policies = self.policies.as_ref().ok_or_else(|| {
            Refused::wrong_role(format!("this node is a slave: older versions are on its master {}", self.master))
        })?;
        policies.get(version).map_err(|error| Refused::failed(error.0))?.ok_or_else(|| Refused {
            kind: RefusedKind::NotFound,
            words: format!("there is no version {version}; `tidegate policy log` lists those there are"),
            complaints: Vec::new(),
        })
    }

    fn conflict(&self, policies: &Policies, base: Option<u64>) -> Refused {
        let current = policies.current().ok().flatten();
        let (version, author) =
            current.map_or((0, String::new()), |stored| (stored.version.version, stored.version.author));
        Refused {
            kind: RefusedKind::Conflict,
            words: format!(
                "you started from version {}, but version {version} by {author} is in force now. Look at what it changed \
                 (tidegate policy show), bring your change to it and apply again.",
                base.unwrap_or_default()
            ),
            complaints: Vec::new(),
        }
    }
}

/// A request to be explained, taken apart.
struct Asked {
    client: IpAddr,
    method: String,
    scheme: Scheme,
    host: String,
    port: u16,
    path: String,
    now: Wall,
}

impl Asked {
    fn of(question: &ExplainQuestion) -> Result<Asked, Refused> {
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

    fn facts<'a>(&'a self, user: Option<&'a str>, node: &'a str) -> Facts<'a> {
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

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
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
