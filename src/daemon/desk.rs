//! The desk: performs every [`Action`] for whoever may ask it, and notes what was changed. One place, three faces.

use super::audit;
use super::audit::Audit;
use super::auditing;
use super::backup;
use super::diagnostics;
use super::drain::Drain;
use super::figures::Gauges;
use super::health;
use super::kernel;
use super::params::Params;
use super::policy_desk::Change;
use super::policy_desk::PolicyDesk;
use super::publish::Publisher;
use super::reach;
use super::task_desk::TaskDesk;
use super::upkeep;
use super::verify;
use crate::admin::Action;
use crate::admin::Actor;
use crate::admin::Desk;
use crate::admin::Draining;
use crate::admin::Front;
use crate::admin::Order;
use crate::admin::Outcome;
use crate::admin::Refused;
use crate::admin::RefusedKind;
use crate::admin::Status;
use crate::admin::TaskAction;
use crate::base::clock::Mono;
use crate::base::version::VERSION;
use crate::cluster::Counters;
use crate::cluster::MasterLink;
use crate::cluster::NodeRow;
use crate::cluster::Offer;
use crate::cluster::RecordAccount;
use crate::cluster::drift;
use crate::cluster::master::MasterService;
use crate::cluster::membership::MembershipChange;
use crate::cluster::protocol::Proxy;
use crate::cluster::protocol::hash_text;
use crate::figures;
use crate::figures::NodeFigures;
use crate::limits::CONNECTIONS_SHOWN_MAX;
use crate::log::LogRotation;
use crate::log::Progress;
use crate::log::in_flight::InFlight;
use crate::policy::pac::Choice;
use crate::policy::pac::NoScript;
use crate::proxy::CoreTotals;
use crate::report;
use crate::settings::ProxyProtocol;
use crate::settings::Role;
use crate::settings::Settings;
use crate::store::DatabaseError;
use crate::store::admins::AdminError;
use crate::store::admins::Admins;
use crate::store::admins::Set;
use crate::store::figures::FigureHistory;
use crate::store::records::RecordStore;
use crate::sys::process;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::sync::watch;

/// What the node is, fixed at its start.
#[derive(Clone, Debug)]
pub struct NodeFacts {
    /// NODE_NAME.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// When it started.
    pub started: Mono,
    /// Where clients connect.
    pub listen: Vec<SocketAddr>,
    /// Where the portal is.
    pub portal: SocketAddr,
    /// Data cores.
    pub cores: usize,
    /// STATE_DIR.
    pub state_dir: PathBuf,
    /// A keeper starts the next process at a restart, and this one finishes beside it.
    pub hands_over: bool,
    /// LOG_DIR.
    pub log_dir: PathBuf,
}

/// What other threads know and the desk shows.
pub struct Views {
    /// How far extended.log is.
    pub progress: watch::Receiver<Progress>,
    /// Has another file of extended.log begun.
    pub rotation: LogRotation,
    /// The exchanges that are under way.
    pub in_flight: InFlight,
    /// Highest record the master (or the local store) has acknowledged.
    pub acknowledged: Box<dyn Fn() -> u64 + Send + Sync>,
    /// What stops records from going up; empty if nothing.
    pub shipping_trouble: Box<dyn Fn() -> String + Send + Sync>,
    /// On a slave, how it stands with its master.
    pub link: Box<dyn Fn() -> Option<MasterLink> + Send + Sync>,
    /// The nodes that browsers may use, as the master knows them.
    pub proxies: Box<dyn Fn() -> Vec<Proxy> + Send + Sync>,
    /// On a master, its slaves.
    pub nodes: Box<dyn Fn() -> Vec<NodeRow> + Send + Sync>,
    /// On a master, the service of the cluster.
    pub cluster: Option<Arc<MasterService>>,
}

/// Performs actions on this node.
pub struct NodeDesk {
    /// What the node is.
    pub facts: NodeFacts,
    /// The snapshot in force, and the cores.
    pub publisher: Arc<Publisher>,
    /// Documents, versions, explanations.
    pub policy: PolicyDesk,
    /// Who may log in at the portal.
    pub admins: Arc<Admins>,
    /// The report's store; none on a slave.
    pub records: Option<Arc<dyn RecordStore>>,
    /// startup.ini.
    pub params: Arc<Params>,
    /// config.log.
    pub audit: Audit,
    /// What other threads know.
    pub views: Views,
    /// Wakes the main thread to restart in place.
    pub restart: Arc<Notify>,
    /// Whether the node is being taken out of service.
    pub drain: Arc<Drain>,
    /// What the node counts and measures.
    pub gauges: Arc<Gauges>,
    /// A day of that, and on a master of its slaves' figures.
    pub history: Arc<FigureHistory>,
    /// What health checks see.
    pub health: health::Watch,
    /// On a master, orders to its slaves.
    pub tasks: Option<TaskDesk>,
}

/// The desk as faces hold it. What changes something runs to its end as a task of its own: a browser that goes away or a
/// control connection that ends must not leave a policy half applied.
pub struct FrontDesk(pub Arc<NodeDesk>);

impl Desk for FrontDesk {
    fn perform<'a>(
        &'a self,
        actor: Actor,
        action: Action,
    ) -> Pin<Box<dyn Future<Output = Result<Outcome, Refused>> + Send + 'a>> {
        if !action.changes() {
            return self.0.perform(actor, action);
        }
        let desk = self.0.clone();
        let doing = tokio::spawn(async move { desk.perform(actor, action).await });
        Box::pin(async move {
            doing
                .await
                .unwrap_or_else(|error| Err(Refused::failed(format!("doing it: {error}; this is a bug of Tidegate's"))))
        })
    }
}

impl NodeDesk {
    /// Does `action` for `actor` if they may ask it, and notes it.
    pub fn perform<'a>(
        &'a self,
        actor: Actor,
        action: Action,
    ) -> Pin<Box<dyn Future<Output = Result<Outcome, Refused>> + Send + 'a>> {
        Box::pin(async move {
            let result = match may(&actor, &action) {
                Ok(()) => self.do_it(&actor, &action).await,
                Err(refused) => Err(refused),
            };
            if action.changes() || takes_away(&action) || (is_an_attempt(&action) && result.is_err()) {
                self.audit.note(&actor, &action, result.as_ref().map(drop));
            }
            result
        })
    }
}

/// What changes nothing here, yet leaves the node with somebody: who took it is worth a line.
fn takes_away(action: &Action) -> bool {
    matches!(action, Action::Diagnostics { .. } | Action::Task(TaskAction::Output { .. }))
}

/// A login that somebody typed; with empty fields the login page asks whether there is any administrator.
fn is_an_attempt(action: &Action) -> bool {
    matches!(action, Action::Login { user, .. } if !user.is_empty())
}

/// Who may ask what: the control socket everything, an administrator everything but making administrators and asking for
/// passwords, a visitor only to log in and to ask what balancers and browsers ask.
fn may(actor: &Actor, action: &Action) -> Result<(), Refused> {
    let refused = |words: &str| Err(Refused::new(RefusedKind::NotAllowed, words));
    match (actor, action) {
        (Actor::Local { .. }, _) | (Actor::Visitor { .. }, Action::Login { .. }) => Ok(()),
        (Actor::Visitor { .. }, Action::Health { .. } | Action::ProxyScript { .. }) => Ok(()),
        // Which visitors, METRICS_ALLOW says.
        (Actor::Visitor { .. }, Action::Metrics) => Ok(()),
        (Actor::Visitor { .. }, _) => refused("log in first"),
        (Actor::Administrator { .. }, Action::AdminAdd { .. }) => {
            refused("administrators are made on the node itself: tidegate admin add NAME")
        }
        (Actor::Administrator { .. }, _) => Ok(()),
        (Actor::Master { .. }, Action::Restart { .. } | Action::Reload | Action::Flush { .. }) => Ok(()),
        (Actor::Master { .. }, Action::RotateLogs | Action::Verify | Action::Backup) => Ok(()),
        // Who went where is in the master's own records; it does not come this way.
        (Actor::Master { .. }, Action::Diagnostics { with_log: false }) => Ok(()),
        (Actor::Master { .. }, Action::Drain { node: None } | Action::Undrain { node: None }) => Ok(()),
        (Actor::Master { .. }, _) => refused("that is nothing a master orders"),
    }
}

impl NodeDesk {
    async fn do_it(&self, actor: &Actor, action: &Action) -> Result<Outcome, Refused> {
        match action {
            Action::Status => Ok(Outcome::Status(Box::new(self.status()))),
            Action::Nodes => Ok(Outcome::Nodes { nodes: self.accounted_nodes().await? }),
            Action::Connections { limit } => {
                let limit = (*limit as usize).min(CONNECTIONS_SHOWN_MAX);
                Ok(Outcome::Connections(self.views.in_flight.look(limit)))
            }
            Action::Verify => Ok(Outcome::Verify { checks: verify::walk(self).await }),
            Action::Kernel => Ok(Outcome::Kernel { checks: kernel::look(self) }),
            Action::Diagnostics { with_log } => diagnostics::gather(self, *with_log).await,
            Action::PolicyShow { version } => self.policy.show(*version).await,
            Action::PolicyCheck { document } => self.policy.check(document).await,
            Action::PolicyDiff { from, to } => self.policy.diff(from, to).await,
            Action::PolicyRollout => self.policy.rollouts()?.show(),
            Action::PolicyRolloutAbort { comment } => self.policy.rollouts()?.abort(&audit::who(actor), comment).await,
            Action::PolicyRolloutSkip { comment } => self.policy.rollouts()?.skip(&audit::who(actor), comment).await,
            Action::PolicyMerge { document, base } => self.policy.merge(document, *base).await,
            Action::PolicyApply { document, comment, base, how } => {
                self.policy.apply(&Change { by: actor, comment, base: *base, how }, document).await
            }
            Action::PolicyLog { limit } => self.policy.log(*limit).await,
            Action::PolicyRollback { to, comment, base, how } => {
                self.policy.rollback(&Change { by: actor, comment, base: *base, how }, *to).await
            }
            Action::Explain(question) => self.policy.explain(question, &self.facts.name).await,
            Action::Report(question) => self.report(question.clone()).await,
            Action::Audit(question) => auditing::audit(self, question).await,
            Action::ParamsShow => self.params.show(),
            Action::ParamsSubmit { values, force } => {
                if !force {
                    reach::refuse_lockout(actor, values, self.params.watch().borrow().portal_ip)?;
                }
                self.params.submit(values)
            }
            Action::Reload => self.reload().await,
            Action::Restart { backup } => self.restart(*backup),
            Action::AdminAdd { user, password } => self.admin_add(user.clone(), password.clone()).await,
            Action::Login { user, password } => self.login(user.clone(), password.clone()).await,
            Action::Health { synced_within_s } => {
                Ok(Outcome::Health { reasons: health::reasons(self, actor, *synced_within_s) })
            }
            Action::Metrics => self.metrics(actor).await,
            Action::FiguresOfDay { node } => self.figures_of_day(node.clone()).await,
            Action::ProxyScript { client, host } => self.proxy_script(client, host),
            Action::Membership { change, node } => self.membership(*change, node.clone()).await,
            Action::Drain { node } => match self.other(node.as_deref()) {
                Some(slave) => self.task_desk()?.order(&audit::who(actor), Order::Drain, slave, None).await,
                None => {
                    self.carries_traffic("drain")?;
                    self.drain.begin(&audit::who(actor)).await
                }
            },
            Action::Undrain { node } => match self.other(node.as_deref()) {
                Some(slave) => self.task_desk()?.order(&audit::who(actor), Order::Undrain, slave, None).await,
                None => {
                    self.carries_traffic("undrain")?;
                    self.drain.end().await
                }
            },
            Action::RotateLogs => upkeep::rotate_logs(self).await,
            Action::Backup => upkeep::back_up(self).await,
            Action::Task(asked) => self.task_desk()?.perform(&audit::who(actor), asked).await,
            Action::Flush { memory } => upkeep::flush(self, *memory).await,
        }
    }

    /// How this node is.
    pub fn status(&self) -> Status {
        let progress = self.views.progress.borrow().clone();
        let snapshot = self.publisher.current();
        let trouble = match progress.trouble.is_empty() {
            true => (self.views.shipping_trouble)(),
            false => progress.trouble,
        };
        Status {
            node: self.facts.name.clone(),
            role: self.facts.role.to_string(),
            version: VERSION.to_string(),
            pid: std::process::id(),
            uptime_s: Mono::now().micros_since(self.facts.started) / 1_000_000,
            listen: self.facts.listen.iter().map(SocketAddr::to_string).collect(),
            portal: self.facts.portal.to_string(),
            cores: self.facts.cores,
            snapshot: snapshot.name().to_string(),
            policy_version: snapshot.version(),
            master: (self.views.link)(),
            records_written: progress.written,
            records_acknowledged: (self.views.acknowledged)(),
            log_trouble: trouble,
            waiting_for_restart: self.params.waiting(),
            params_trouble: self.params.trouble(),
            counters: counters(self.publisher.totals()),
            front: front(self.publisher.totals()),
            draining: self.drain.standing(),
        }
    }

    /// What this node has for balancers.
    fn offer(&self) -> Offer {
        offer(&self.facts, &self.params.watch().borrow(), self.drain.standing())
    }

    /// The figures as Prometheus reads them, for whom METRICS_ALLOW lets ask.
    async fn metrics(&self, actor: &Actor) -> Result<Outcome, Refused> {
        if let Actor::Visitor { address } = actor {
            let allowed = address.parse().is_ok_and(|from| self.params.watch().borrow().metrics_allow.holds(from));
            if !allowed {
                let words =
                    format!("{address} may not read this node's figures: add it to METRICS_ALLOW in startup.ini");
                return Err(Refused::new(RefusedKind::NotAllowed, words));
            }
        }
        let mut text = figures::exposition(&self.gauges.read(), VERSION, &self.facts.role.to_string());
        let rows = self.accounted_nodes().await?;
        let known = rows.iter().filter(|row| row.refusal.is_empty());
        let known = known.map(|row| NodeFigures {
            node: &row.name,
            drifts: !row.drift.is_empty(),
            stored: row.records.stored,
            missing: row.records.missing,
            lag: row.record_lag,
        });
        figures::add_nodes(&mut text, &known.collect::<Vec<_>>());
        Ok(Outcome::Metrics { text })
    }

    async fn figures_of_day(&self, node: Option<String>) -> Result<Outcome, Refused> {
        let (history, now_s) = (self.history.clone(), crate::base::clock::Wall::now().0 / 1_000_000);
        match tokio::task::spawn_blocking(move || history.day(node.as_deref(), now_s)).await {
            Ok(Ok(points)) => Ok(Outcome::FiguresOfDay { points }),
            Ok(Err(error)) => Err(Refused::failed(error.0)),
            Err(error) => Err(Refused::failed(format!("asking the history of figures: {error}"))),
        }
    }

    /// This node, and on a master its slaves.
    pub fn nodes(&self) -> Vec<NodeRow> {
        let status = self.status();
        let own = NodeRow {
            name: status.node,
            role: status.role,
            address: status.portal,
            fingerprint: String::new(),
            former_key_until_us: 0,
            version: status.version,
            snapshot: status.snapshot,
            current: true,
            last_contact_us: crate::base::clock::Wall::now().0,
            up: true,
            record_lag: status.records_written.saturating_sub(status.records_acknowledged),
            records: RecordAccount::default(),
            clock_skew_ms: 0,
            refusal: String::new(),
            error: status.log_trouble,
            counters: status.counters,
            offer: self.offer(),
            figures: self.gauges.read(),
            drift: self.own_drift(),
            labels: self.params.watch().borrow().node_labels.clone(),
        };
        std::iter::once(own).chain((self.views.nodes)()).collect()
    }

    /// In what this node itself decides by something else than its snapshot.
    fn own_drift(&self) -> String {
        let (current, enforced) = (self.publisher.current(), self.publisher.enforced());
        drift::words(&enforced, current.name(), current.name(), &hash_text(current.hash()))
    }

    async fn report(&self, question: report::Question) -> Result<Outcome, Refused> {
        let Some(records) = self.records.clone() else {
            let master = (self.views.link)().map(|link| link.address).unwrap_or_default();
            return Err(Refused::wrong_role(format!(
                "this node is a slave: the report of all nodes is on its master {master}"
            )));
        };
        let answer = tokio::task::spawn_blocking(move || report::answer(&*records, &question)).await;
        match answer {
            Ok(Ok(answer)) => Ok(Outcome::Report(Box::new(answer))),
            Ok(Err(error)) => Err(Refused::failed(error.to_string())),
            Err(error) => Err(Refused::failed(format!("asking the record store: {error}"))),
        }
    }

    /// The script by which a browser that reached this node at `host` finds its way.
    fn proxy_script(&self, client: &str, host: &str) -> Result<Outcome, Refused> {
        let client = client.parse().map_err(|_| Refused::invalid(format!("client `{client}` is not an IP address")))?;
        let choice = |proxy: Proxy| Choice { address: proxy.address.to_string(), weight: proxy.weight };
        let mut nodes: Vec<_> = (self.views.proxies)().into_iter().map(choice).collect();
        if nodes.is_empty() && self.facts.role != Role::Master {
            nodes.extend(self.own_choice(host));
        }
        let snapshot = self.publisher.current();
        snapshot.proxy_script(client, &nodes).map(|script| Outcome::ProxyScript { script }).map_err(|why| match why {
            NoScript::NotInPolicy => Refused::new(
                RefusedKind::NotFound,
                "the policy in force has no [pac] section, so there is no proxy auto-configuration",
            ),
            NoScript::NoProxy => Refused::failed(
                "no node is known that browsers may use: slaves are away, drained, or take clients from balancers only \
                 (PROXY_PROTOCOL is required there); name the balancers in the policy's [pac] proxies",
            ),
            NoScript::TooLong => Refused::failed(
                "the script would be too long for browsers; shorten [pac] direct_hosts or direct_networks",
            ),
        })
    }

    /// This node as a browser may use it that reached its portal at `host`.
    fn own_choice(&self, host: &str) -> Option<Choice> {
        let required = self.params.watch().borrow().proxy_protocol == ProxyProtocol::Required;
        let listener = self.facts.listen.first().filter(|_| !required)?;
        let address = match listener.ip().is_unspecified() {
            true => format!("{host}:{}", listener.port()),
            false => listener.to_string(),
        };
        Some(Choice { address, weight: 1 })
    }

    /// The node that is named, if that is not this one.
    fn other<'a>(&self, node: Option<&'a str>) -> Option<&'a str> {
        node.filter(|node| !node.eq_ignore_ascii_case(&self.facts.name))
    }

    /// Refuses what only a node can do that carries traffic.
    fn carries_traffic(&self, order: &str) -> Result<(), Refused> {
        match self.facts.role {
            Role::Master => Err(Refused::wrong_role(format!(
                "this node is the master: it carries no traffic, so there is nothing to {order}. Name the slave that is meant: \
                 `tidegate {order} NAME`"
            ))),
            _ => Ok(()),
        }
    }

    /// Orders go from the master to its slaves, and no other way.
    fn task_desk(&self) -> Result<&TaskDesk, Refused> {
        let own = &self.facts.name;
        self.tasks.as_ref().ok_or_else(|| {
            let words = match (self.views.link)() {
                Some(link) => format!("this node is {own}, a slave: ask its master {}, which orders tasks of all slaves", link.address),
                None => format!("this node is {own}, alone: it has no slaves to order anything of. Ask it itself, without a node's name"),
            };
            Refused::wrong_role(words)
        })
    }

    /// How this node is, on one line: for `systemctl status`.
    pub fn status_line(&self) -> String {
        let progress = self.views.progress.borrow().clone();
        let behind = progress.written.saturating_sub((self.views.acknowledged)());
        let mut line = format!(
            "{} {}: policy {}, {} connections, {behind} records to ship",
            self.facts.role,
            self.facts.name,
            self.publisher.current().name(),
            self.publisher.totals().connections_open
        );
        let master = (self.views.link)().map(|link| link.trouble);
        let troubles = master.into_iter().chain([progress.trouble, (self.views.shipping_trouble)()]);
        for trouble in troubles.chain(self.params.trouble()).filter(|words| !words.is_empty()) {
            line = format!("{line}; {trouble}");
        }
        line
    }

    /// Changes who belongs to the cluster, where that is known: on its master.
    async fn membership(&self, change: MembershipChange, node: String) -> Result<Outcome, Refused> {
        let Some(master) = self.views.cluster.clone() else {
            return Err(Refused::wrong_role("only the master of a cluster knows its nodes: ask there"));
        };
        let name = node.clone();
        let changed = tokio::task::spawn_blocking(move || master.change_membership(change, &name)).await;
        match changed.map_err(|error| Refused::failed(error.to_string()))? {
            Ok(Some(words)) => Ok(Outcome::Done { words }),
            Ok(None) if change == MembershipChange::Readmit => {
                Err(Refused::new(RefusedKind::NotFound, format!("no node was removed as {node}")))
            }
            Ok(None) => Err(Refused::new(RefusedKind::NotFound, format!("no node of the cluster is called {node}"))),
            Err(error) => Err(Refused::failed(error.to_string())),
        }
    }

    async fn reload(&self) -> Result<Outcome, Refused> {
        let params = self.params.clone();
        match tokio::task::spawn_blocking(move || params.reload_asked()).await {
            Ok(outcome) => outcome,
            Err(error) => Err(Refused::failed(format!("reading the startup params again: {error}"))),
        }
    }

    fn restart(&self, keep: bool) -> Result<Outcome, Refused> {
        // With faults in it the next process would not start, and this one is asked while it still serves.
        self.params.check()?;
        let way = if self.facts.hands_over { "handing over to a new process" } else { "restarting in place" };
        let mut words = way.to_string();
        if keep {
            let dir = backup::keep(&self.facts.state_dir, self.params.file(), self.publisher.current().document())
                .map_err(|error| {
                    Refused::failed(format!("backing up before the restart: {error}; nothing was restarted"))
                })?;
            words = format!("backed up to {}; {words}", dir.display());
        }
        self.restart.notify_one();
        Ok(Outcome::Done { words })
    }

    async fn admin_add(&self, user: String, password: String) -> Result<Outcome, Refused> {
        let admins = self.admins.clone();
        let now_us = crate::base::clock::Wall::now().0;
        let name = user.clone();
        match tokio::task::spawn_blocking(move || admins.set(&name, &password, now_us)).await {
            Ok(Ok(Set::Added)) => Ok(Outcome::Done { words: format!("{user} may now log in at the portal") }),
            Ok(Ok(Set::Replaced)) => Ok(Outcome::Done { words: format!("{user} has a new password") }),
            Ok(Err(AdminError::Unacceptable(words))) => Err(Refused::invalid(&words)),
            Ok(Err(AdminError::Failed(words))) => Err(Refused::failed(&words)),
            Err(error) => Err(Refused::failed(format!("hashing the password: {error}"))),
        }
    }

    async fn login(&self, user: String, password: String) -> Result<Outcome, Refused> {
        let admins = self.admins.clone();
        let name = user.clone();
        let look = move || match admins.count()? {
            // Nobody to compare with: the login page asks this way, with empty fields, and it must cost nothing.
            0 => Ok((0, false)),
            count if name.is_empty() => Ok((count, false)),
            count => Ok((count, admins.verify(&name, &password)?)),
        };
        let looked = tokio::task::spawn_blocking(look).await;
        match looked.unwrap_or_else(|error| Err(DatabaseError(error.to_string()))) {
            Ok((_, true)) => Ok(Outcome::Done { words: format!("{user} is an administrator") }),
            Ok((0, false)) => Err(Refused::new(
                RefusedKind::NotFound,
                "no administrator exists yet: on the node, run `tidegate admin add NAME`",
            )),
            Ok((_, false)) => Err(Refused::new(RefusedKind::NotAllowed, "name and password do not belong together")),
            Err(error) => Err(Refused::failed(error.0)),
        }
    }
}

/// The cores' totals as this node's own status shows them.
fn front(totals: CoreTotals) -> Front {
    Front {
        connections: totals.connections_open,
        shed: totals.shed,
        client_limited: totals.client_limited,
        proxy_header_refused: totals.proxy_header_refused,
        exhausted: totals.exhausted,
        unrecorded: totals.unrecorded,
        sockets: totals.sockets,
        operations: totals.operations,
        descriptors: process::open_descriptors(),
    }
}

/// What a node has for balancers.
pub fn offer(facts: &NodeFacts, settings: &Settings, draining: Option<Draining>) -> Offer {
    Offer {
        listen: facts.listen.iter().map(SocketAddr::to_string).collect(),
        portal: facts.portal.to_string(),
        proxy_protocol: settings.proxy_protocol.to_string(),
        weight: settings.lb_weight.unwrap_or(facts.cores.min(256) as u16),
        closing: draining.as_ref().is_some_and(|draining| draining.closing),
        draining: draining.is_some(),
    }
}

/// The cores' totals as the cluster counts them.
pub fn counters(totals: CoreTotals) -> Counters {
    Counters {
        connections: totals.connections,
        connections_open: totals.connections_open,
        exchanges: totals.exchanges,
        denied: totals.denied,
        failed: totals.failed,
        tunnels_open: totals.tunnels_open,
        upload: totals.upload,
        download: totals.download,
    }
}
