//! Policy at the desk: check, diff, apply, roll back, show, explain. On a slave all but changing.

use super::audit;
use super::explaining::Asked;
use super::publish::Publisher;
use super::rollout::Rollouts;
use crate::admin::Action;
use crate::admin::Actor;
use crate::admin::ApplyHow;
use crate::admin::Complaint;
use crate::admin::ExplainQuestion;
use crate::admin::Outcome;
use crate::admin::PolicySide;
use crate::admin::PolicyText;
use crate::admin::PolicyVersion;
use crate::admin::Refused;
use crate::admin::RefusedKind;
use crate::base::clock::Wall;
use crate::cluster::NodeRow;
use crate::cluster::questions::AskMaster;
use crate::cluster::rollout::Plan;
use crate::cluster::rollout::Rollout;
use crate::limits::POLICY_LOG_ROWS_MAX;
use crate::policy;
use crate::policy::Folder;
use crate::policy::Rights;
use crate::policy::Snapshot;
use crate::policy::Verdict;
use crate::store::policies::AppendError;
use crate::store::policies::NewVersion;
use crate::store::policies::Policies;
use crate::store::policies::Stored;
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
    /// The slaves that are up.
    slaves: Box<dyn Fn() -> Vec<NodeRow> + Send + Sync>,
    /// On a slave, the way to the history.
    ask_master: Option<AskMaster>,
    /// On a master: rollouts in waves.
    rollouts: Option<Arc<Rollouts>>,
    /// One change at a time: a version's number is known before it is compiled.
    changing: tokio::sync::Mutex<()>,
}

/// A change of policy: by whom, why, from which version on, and how.
pub struct Change<'a> {
    /// By whom.
    pub by: &'a Actor,
    /// Why, for the history.
    pub comment: &'a str,
    /// The version that its author started from; `None`: whatever is in force.
    pub base: Option<u64>,
    /// How.
    pub how: &'a ApplyHow,
}

impl PolicyDesk {
    /// The desk of a node that writes policy (`policies`), or of a slave of `master`.
    pub fn new(
        publisher: Arc<Publisher>,
        policies: Option<Arc<Policies>>,
        lists_dir: PathBuf,
        master: String,
        origin: Box<dyn Fn() -> String + Send + Sync>,
        slaves: Box<dyn Fn() -> Vec<NodeRow> + Send + Sync>,
        ask_master: Option<AskMaster>,
        rollouts: Option<Arc<Rollouts>>,
    ) -> Self {
        let changing = tokio::sync::Mutex::new(());
        PolicyDesk { publisher, policies, lists_dir, master, origin, slaves, ask_master, rollouts, changing }
    }

    /// The document of `version`, or the one in force.
    pub async fn show(&self, version: Option<u64>) -> Result<Outcome, Refused> {
        let current = self.publisher.current();
        let Some(version) = version.filter(|version| *version != current.version()) else {
            return Ok(Outcome::Policy(PolicyText {
                version: current.version(),
                snapshot: current.name().to_string(),
                document: current.document().to_string(),
                origin: (self.origin)(),
            }));
        };
        if let Some(master) = &self.ask_master {
            return ask(master, &Action::PolicyShow { version: Some(version) }).await;
        }
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

    /// How `from` and `to` differ.
    pub async fn diff(&self, from: &PolicySide, to: &PolicySide) -> Result<Outcome, Refused> {
        let complaints = match to {
            PolicySide::Document { document } => self.compile(document, 1).await?.err().unwrap_or_default(),
            _ => Vec::new(),
        };
        let (from, to) = (self.side(from).await?, self.side(to).await?);
        let compare = move || policy::diff((&from.0, &from.1), (&to.0, &to.1));
        let text = tokio::task::spawn_blocking(compare).await.map_err(|error| {
            Refused::failed(format!("comparing the documents: {error}; this is a bug of Tidegate's"))
        })?;
        Ok(Outcome::Diff { text, complaints })
    }

    /// The name and the document of one side of a comparison.
    async fn side(&self, side: &PolicySide) -> Result<(String, String), Refused> {
        let version = match side {
            PolicySide::Document { document } => return Ok(("document".to_string(), document.clone())),
            PolicySide::InForce => None,
            PolicySide::Version { version } => Some(*version),
        };
        match self.show(version).await? {
            Outcome::Policy(text) => Ok((text.snapshot, text.document)),
            _ => Err(Refused::failed("the master answered something else than a policy; run the same version on both")),
        }
    }

    /// What was applied since `base`, brought into `document`.
    pub async fn merge(&self, document: &str, base: u64) -> Result<Outcome, Refused> {
        self.writable()?;
        let current = self.publisher.current();
        let begun = match base == current.version() {
            true => current.document().to_string(),
            false => self.stored(base)?.document,
        };
        let (version, yours) = (current.version(), document.to_string());
        let merge = move || {
            let names = (format!("version {version}"), format!("your text, from version {base}"));
            policy::merge(&begun, current.document(), &yours, (&names.0, &names.1))
        };
        let merged = tokio::task::spawn_blocking(merge)
            .await
            .map_err(|error| Refused::failed(format!("merging the documents: {error}; this is a bug of Tidegate's")))?;
        Ok(Outcome::Merged { document: merged.document, version, overlaps: merged.overlaps })
    }

    /// Compiles, stores, publishes.
    pub async fn apply(&self, change: &Change<'_>, document: &str) -> Result<Outcome, Refused> {
        let Change { by, comment, base, how } = *change;
        let author = audit::who(by);
        let policies = self.writable()?;
        let _turn = self.changing.lock().await;
        let current = self.publisher.current();
        if base.is_some_and(|base| base != current.version()) {
            return Err(self.conflict(&policies, base));
        }
        if self.rollouts.as_ref().is_some_and(|rollouts| rollouts.is_running()) {
            return Err(Refused::new(
                RefusedKind::Conflict,
                format!(
                    "version {} is being rolled out in waves. Wait for its end (tidegate policy rollout --follow), or end it: \
                     tidegate policy rollout abort, or in an emergency skip; then apply again",
                    current.version()
                ),
            ));
        }
        let plan = self.plan(&current, how)?;
        let in_waves = plan.is_some();
        if self.is_in_force(&current, document).await? {
            let (version, snapshot) = (current.version(), current.name().to_string());
            return Ok(Outcome::Applied { version, snapshot, changed: false, in_waves: false });
        }
        let version = policies.next_version().map_err(|error| Refused::failed(error.0))?;
        let bytes = self.compile(document, version).await?.map_err(|complaints| Refused {
            kind: RefusedKind::Invalid,
            words: format!("the document has {} fault(s); nothing was changed", complaints.len()),
            complaints,
        })?;
        let snapshot = Snapshot::open(&bytes)
            .map_err(|error| Refused::failed(format!("checking the snapshot that was just compiled: {error}")))?;
        if !how.force {
            self.refuse_lockout(by, &current, &snapshot)?;
        }
        let name = snapshot.name().to_string();
        let hash = hex(&snapshot.hash());
        let mut conflict = None;
        let rollout = plan.map(|plan| {
            Rollout::new((version, current.version()), (&name, current.name()), plan, &author, Wall::now())
        });
        let text = rollout.as_ref().map(serde_json::to_string).transpose();
        let text = text.map_err(|error| Refused::failed(format!("writing the rollout down: {error}")))?;
        let keep = || {
            let new = NewVersion {
                version,
                snapshot: &name,
                hash: &hash,
                bytes: &bytes,
                document,
                author: &author,
                comment,
                applied_us: Wall::now().0,
                base,
                rollout: text.as_deref(),
            };
            let kept = policies.append(&new);
            if let (Ok(()), Some(rollout), Some(rollouts)) = (&kept, &rollout, &self.rollouts) {
                // Before the new version is published: until its wave comes, a slave keeps what it has.
                rollouts.begin(rollout.clone(), current.clone());
            }
            kept.map_err(|error| {
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
        Ok(Outcome::Applied { version, snapshot: name, changed: true, in_waves })
    }

    /// The history, newest first.
    pub async fn log(&self, limit: u32) -> Result<Outcome, Refused> {
        if let Some(master) = &self.ask_master {
            return ask(master, &Action::PolicyLog { limit }).await;
        }
        let current = self.publisher.current().version();
        let policies = self.writable()?;
        let versions = policies.log(limit.min(POLICY_LOG_ROWS_MAX)).map_err(|error| Refused::failed(error.0))?;
        let row = |version: crate::store::policies::Version| PolicyVersion {
            current: version.version == current,
            version: version.version,
            snapshot: version.snapshot,
            applied_us: version.applied_us,
            author: version.author,
            comment: version.comment,
            reverted: version.reverted,
        };
        Ok(Outcome::History { versions: versions.into_iter().map(row).collect() })
    }

    /// Applies the document of an older version as a new one.
    pub async fn rollback(&self, change: &Change<'_>, to: u64) -> Result<Outcome, Refused> {
        self.writable()?;
        let document = self.stored(to)?.document;
        let comment = match change.comment.is_empty() {
            true => format!("rollback to version {to}"),
            false => format!("rollback to version {to}: {}", change.comment),
        };
        self.apply(&Change { comment: &comment, ..*change }, &document).await
    }

    /// The waves that are asked for, where there can be any.
    fn plan(&self, current: &Snapshot, how: &ApplyHow) -> Result<Option<Plan>, Refused> {
        let Some(waves) = &how.waves else { return Ok(None) };
        if self.rollouts.is_none() {
            return Err(Refused::invalid(
                "this node stands alone: it has no slaves that a policy could reach in waves",
            ));
        }
        if current.version() == 0 {
            let words = "there is no policy yet that slaves could keep until their wave comes: apply the first one without waves";
            return Err(Refused::invalid(words));
        }
        Plan::parse(&waves.sizes, waves.window_s).map(Some).map_err(Refused::invalid)
    }

    /// The rollouts of a master.
    pub fn rollouts(&self) -> Result<&Rollouts, Refused> {
        let words = "rollouts in waves are the master's: this node has no slaves";
        self.rollouts.as_deref().ok_or_else(|| Refused::wrong_role(words))
    }

    /// Refuses what would shut out everybody, every slave, or whoever applies it.
    fn refuse_lockout(&self, by: &Actor, current: &Snapshot, new: &Snapshot) -> Result<(), Refused> {
        let refused = |words: String| {
            let remedy = "Nothing was changed. Mend the document, or apply it all the same with --force (in the portal: tick the box)";
            Err(Refused::new(RefusedKind::LocksOut, format!("{words}. {remedy}")))
        };
        // Where everything is denied already, as on a node without a policy, a first step that allows nothing yet takes nothing away.
        if let Some(why) = new.denies_everything().filter(|_| current.denies_everything().is_none()) {
            return refused(format!("this policy would deny everything to everybody: {why}"));
        }
        let slaves = (self.slaves)().into_iter().filter(|row| row.up && row.refusal.is_empty());
        let addresses: Vec<IpAddr> = slaves.filter_map(|row| row.address.parse().ok()).collect();
        let may_join = |address: &IpAddr| !new.authentication_on() || new.rights(*address).contains(Rights::CLUSTER);
        if !addresses.is_empty() && !addresses.iter().any(may_join) {
            return refused(format!(
                "this policy would turn every slave away ({} of them, the first at {}): authentication is on, and no entry of the \
                 allow list gives their addresses the right CLUSTER",
                addresses.len(),
                addresses[0]
            ));
        }
        let Actor::Administrator { address, .. } = by else { return Ok(()) };
        let Ok(address) = address.parse::<IpAddr>() else { return Ok(()) };
        let lost = current.rights(address) != Rights::NONE && new.rights(address) == Rights::NONE;
        if lost {
            return refused(format!(
                "this policy would lock you out: your own address {address} may use the proxy now, and could not any more"
            ));
        }
        Ok(())
    }

    /// The walk that decides, told.
    pub async fn explain(&self, question: &ExplainQuestion, node: &str) -> Result<Outcome, Refused> {
        let current = self.publisher.current();
        let older = question.version.filter(|version| *version != current.version());
        if let (Some(_), Some(master)) = (older, &self.ask_master) {
            return ask(master, &Action::Explain(question.clone())).await;
        }
        let snapshot = match (&question.document, older) {
            (_, Some(version)) => Arc::new(self.open_version(version).await?),
            (None, None) => current,
            (Some(document), None) => {
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

    /// What a slave asks: older versions, and how they decided for a request that came to it.
    pub async fn answer_slave(&self, node: &str, question: &[u8]) -> Result<Vec<u8>, String> {
        let action = serde_json::from_slice::<Action>(question).map_err(|error| {
            format!("the question is not one that this master knows ({error}): run the same version on all nodes")
        })?;
        let answer = match &action {
            Action::PolicyShow { version } => self.show(*version).await,
            Action::PolicyLog { limit } => self.log(*limit).await,
            Action::Explain(question) if question.document.is_none() => self.explain(question, node).await,
            _ => Err(Refused::new(RefusedKind::NotAllowed, "a slave may only ask for versions of policy")),
        };
        serde_json::to_vec(&answer).map_err(|error| error.to_string())
    }

    /// The snapshot of a version, as it was when it was in force.
    async fn open_version(&self, version: u64) -> Result<Snapshot, Refused> {
        let (stored, policies) = (self.stored(version)?, self.writable()?);
        let path = policies.snapshot_path(&stored.version.snapshot);
        let opened = tokio::task::spawn_blocking(move || Snapshot::open_held(&path)).await;
        let opened = opened.map_err(|error| Refused::failed(format!("opening version {version}: {error}")))?;
        opened.map_err(|error| {
            Refused::failed(format!(
                "the snapshot of version {version} cannot be used: {error}. Explain by its document instead: tidegate policy show \
                 --version {version} > old.toml, then tidegate policy explain --document old.toml"
            ))
        })
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
        let base = base.unwrap_or_default();
        Refused {
            kind: RefusedKind::Conflict,
            words: format!(
                "you started from version {base}, but version {version} by {author} is in force now. Look at what it changed \
                 (tidegate policy diff {base}), bring your change to it (tidegate policy merge) and apply again.",
            ),
            complaints: Vec::new(),
        }
    }
}

/// Asks the master.
async fn ask(master: &AskMaster, action: &Action) -> Result<Outcome, Refused> {
    let question = serde_json::to_vec(action).map_err(|error| Refused::failed(error.to_string()))?;
    let answer = master.ask(question).await.map_err(Refused::failed)?;
    serde_json::from_slice::<Result<Outcome, Refused>>(&answer).unwrap_or_else(|error| {
        Err(Refused::failed(format!("the master's answer cannot be read: {error}; run the same version on both")))
    })
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}
