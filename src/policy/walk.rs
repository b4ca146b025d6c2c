//! The one walk from facts to a decision. `decide` walks it in silence and allocates nothing; `explain` walks it with a
//! narrator who writes down what was looked at, whether it held, and why.

use super::compile::RULE_CONNECT_PORTS;
use super::compile::RULE_PROFILES_DEFAULT;
use super::decision::Bits;
use super::decision::Decision;
use super::decision::Denial;
use super::decision::ListKind;
use super::decision::Permit;
use super::decision::Rights;
use super::decision::RuleId;
use super::decision::Tags;
use super::decision::TemplateId;
use super::decision::Verdict;
use super::decision::Why;
use super::facts::Facts;
use super::facts::Scheme;
use super::sections::access_profiles;
use super::sections::access_restriction::Admission;
use super::sections::parents;
use super::sections::request_types;
use super::sections::time_profiles::LocalTime;
use super::snapshot::Snapshot;
use super::snapshot::body::ArchivedAccessProfile;
use super::snapshot::body::ArchivedAction;
use std::ops::Range;

/// May this request go out? Allocates nothing.
#[inline]
pub fn decide(snapshot: &Snapshot, facts: &Facts) -> Decision {
    walk(snapshot, facts, &mut Silent)
}

/// The same walk as [`decide`], told line by line.
pub fn explain(snapshot: &Snapshot, facts: &Facts) -> (Decision, Vec<String>) {
    let mut told = Told(Vec::new());
    let decision = walk(snapshot, facts, &mut told);
    (decision, told.0)
}

/// Hears every step of the walk.
trait Narrator {
    /// One line; only a narrator who listens makes the text.
    fn say(&mut self, line: impl FnOnce() -> String);
}

struct Silent;

impl Narrator for Silent {
    #[inline(always)]
    fn say(&mut self, _line: impl FnOnce() -> String) {}
}

struct Told(Vec<String>);

impl Narrator for Told {
    fn say(&mut self, line: impl FnOnce() -> String) {
        self.0.push(line());
    }
}

#[inline]
fn walk<N: Narrator>(snapshot: &Snapshot, facts: &Facts, narrator: &mut N) -> Decision {
    narrator.say(|| opening(snapshot, facts));
    let mut tags = Tags::default();
    time_profiles(snapshot, facts, &mut tags, narrator);
    request_types(snapshot, facts, &mut tags, narrator);
    categories(snapshot, facts, &mut tags, narrator);
    let admission = snapshot.admission(facts.client);
    let mut marked = false;
    let verdict = match admit(snapshot, facts, &admission, &mut tags, narrator) {
        Some(denial) => Verdict::Deny(denial),
        None => access_profiles(snapshot, facts, &mut tags, &mut marked, narrator),
    };
    narrator.say(|| closing(snapshot, &verdict, &tags, marked));
    Decision { verdict, tags, do_not_bypass: marked }
}

fn time_profiles<N: Narrator>(snapshot: &Snapshot, facts: &Facts, tags: &mut Tags, narrator: &mut N) {
    let mut last: Option<(usize, LocalTime)> = None;
    for (number, profile) in snapshot.body().time_profiles.iter().enumerate() {
        let zone = profile.zone.to_native() as usize;
        let local = match last {
            Some((known, local)) if known == zone => local,
            _ => match snapshot.zones().get(zone) {
                Some(rules) => LocalTime::new(facts.now, rules),
                None => continue,
            },
        };
        last = Some((zone, local));
        let holds = profile.holds(&local);
        if holds {
            tags.time_profiles.insert(number);
        }
        narrator.say(|| {
            let zone = snapshot.body().zones.get(zone).map_or("", |zone| zone.as_str());
            let (now, stretch) = (local.words(), profile.words());
            let is = if holds { "matched" } else { "not matched" };
            format!("Time Profiles: \"{}\" {is}: it is {now} ({zone}); the profile is {stretch}", profile.name)
        });
    }
}

fn request_types<N: Narrator>(snapshot: &Snapshot, facts: &Facts, tags: &mut Tags, narrator: &mut N) {
    tags.request_types = snapshot.types().of(facts, snapshot.body(), snapshot.patterns());
    for (number, request_type) in snapshot.body().request_types.iter().enumerate() {
        narrator.say(|| {
            let is = if tags.request_types.contains(number) {
                "matched".to_string()
            } else {
                let miss = request_type.miss(facts, snapshot.patterns());
                format!("not matched{}", miss.map_or(String::new(), |miss| format!(": {}", miss_words(miss, facts))))
            };
            format!("Request Types: \"{}\" {is}", request_type.name)
        });
    }
}

fn categories<N: Narrator>(snapshot: &Snapshot, facts: &Facts, tags: &mut Tags, narrator: &mut N) {
    tags.categories = snapshot.body().hosts.find(facts.host.as_bytes());
    let known = !tags.categories.is_empty();
    if !known {
        tags.categories.insert(0);
    }
    narrator.say(|| {
        let names = names(snapshot, ListKind::Categories, &tags.categories);
        let on = if known { "" } else { ": on no list" };
        format!("Categories: {} is {names}{on}", facts.host)
    });
}

/// Access Restriction and what hangs on it: rights, authentication, groups, and the ports of tunnels.
fn admit<N: Narrator>(
    snapshot: &Snapshot,
    facts: &Facts,
    admission: &Admission,
    tags: &mut Tags,
    narrator: &mut N,
) -> Option<Denial> {
    let rule = RuleId(admission.rule);
    if let Some(entry) = admission.entry {
        tags.user_groups = Bits(entry.user_groups.map(|word| word.to_native()));
    }
    narrator.say(|| {
        let is = if admission.admitted { "admits" } else { "denies" };
        format!("{} ({}) {is} {}", snapshot.rule_name(rule), place(snapshot, rule), facts.client)
    });
    let tunnel = facts.scheme == Scheme::Tunnel;
    let why = if !admission.admitted {
        Some(Why::Rule)
    } else if tunnel && !admission.rights.contains(Rights::CONNECT) {
        Some(Why::NoConnectRight)
    } else if !tunnel && !admission.rights.contains(Rights::PROXY) {
        Some(Why::NoProxyRight)
    } else if admission.authentication && facts.user.is_none() {
        Some(Why::NotAuthenticated)
    } else {
        None
    };
    if let Some(why) = why {
        return Some(denial(snapshot, rule, why));
    }
    narrator.say(|| {
        let right = if tunnel { "CONNECT" } else { "PROXY" };
        let groups = names(snapshot, ListKind::UserGroups, &tags.user_groups);
        format!("Access Restriction: the right {right} is granted; user groups: {groups}")
    });
    if tunnel && !snapshot.network().allows_tunnel(facts.port) {
        narrator.say(|| format!("Network: connect_ports does not name port {}", facts.port));
        return Some(denial(snapshot, RuleId(RULE_CONNECT_PORTS), Why::Rule));
    }
    None
}

fn access_profiles<N: Narrator>(
    snapshot: &Snapshot,
    facts: &Facts,
    tags: &mut Tags,
    marked: &mut bool,
    narrator: &mut N,
) -> Verdict {
    let profiles = &snapshot.body().access_profiles;
    let mut walk = snapshot.rules().walk(facts.node, tags);
    let mut told = 0;
    while let Some(number) = walk.next(tags) {
        let Some(profile) = profiles.get(number).filter(|profile| profile.node_holds(facts.node)) else { continue };
        missed(snapshot, told..number, facts, tags, narrator);
        told = number + 1;
        let rule = RuleId(profile.rule.to_native());
        let before = tags.profiles;
        tags.profiles.add(&Bits(profile.add_profiles.map(|word| word.to_native())));
        tags.profiles.remove(&Bits(profile.remove_profiles.map(|word| word.to_native())));
        narrator.say(|| format!("{} matched: {}", title(snapshot, rule), effect(snapshot, profile)));
        match profile.action {
            ArchivedAction::Allow => return permit(snapshot, facts, rule, tags, narrator),
            ArchivedAction::Deny => return Verdict::Deny(denial(snapshot, rule, Why::Rule)),
            ArchivedAction::DoNotBypass => *marked = true,
            ArchivedAction::Inherit => {}
        }
        if tags.profiles != before {
            walk.profiles_changed(&before, tags);
        }
    }
    missed(snapshot, told..profiles.len(), facts, tags, narrator);
    let (rule, allow) = (RuleId(RULE_PROFILES_DEFAULT), snapshot.body().profiles_default_allow);
    narrator.say(|| {
        let does = if allow { "allows" } else { "denies" };
        format!("Access Profiles: no rule decided; access_profiles_default {does} the request")
    });
    if allow { permit(snapshot, facts, rule, tags, narrator) } else { Verdict::Deny(denial(snapshot, rule, Why::Rule)) }
}

/// Tells of rules that the walk went past, and why. Tags are as they were when it did: only a rule that holds changes them.
fn missed<N: Narrator>(snapshot: &Snapshot, rules: Range<usize>, facts: &Facts, tags: &Tags, narrator: &mut N) {
    for profile in snapshot.body().access_profiles.get(rules).unwrap_or_default() {
        narrator.say(|| {
            let title = title(snapshot, RuleId(profile.rule.to_native()));
            let why = profile.miss(facts.node, tags).map(|miss| profile_miss(snapshot, miss, facts, tags));
            format!("{title} not matched: {}", why.unwrap_or_default())
        });
    }
}

/// The only place where a permit is made.
fn permit<N: Narrator>(snapshot: &Snapshot, facts: &Facts, rule: RuleId, tags: &Tags, narrator: &mut N) -> Verdict {
    let body = snapshot.body();
    let route = snapshot.route(facts.host, tags);
    if !body.routes.is_empty() {
        narrator.say(|| match route {
            Some(number) => format!("{}: {}", parents::SECTION, body.route_words(number)),
            None => format!("{}: none holds; straight to the origin", parents::SECTION),
        });
    }
    Verdict::Permit(Permit { rule, upgrade: snapshot.network().allows_upgrade(facts), route })
}

fn denial(snapshot: &Snapshot, rule: RuleId, why: Why) -> Denial {
    let template = snapshot.rule(rule).map_or(0, |rule| rule.template.to_native());
    Denial { rule, why, template: TemplateId(template) }
}

// --- words, for the narrator alone ---------------------------------------------------------------------------------

fn opening(snapshot: &Snapshot, facts: &Facts) -> String {
    let scheme = match facts.scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
        Scheme::Tunnel => "tunnel",
    };
    let user = facts.user.unwrap_or("anonymous");
    let (method, host, port, path) = (facts.method, facts.host, facts.port, facts.path);
    let policy = snapshot.name();
    format!(
        "Policy {policy}: {method} {scheme} {host}:{port}{path} from {user}@{} on node {}",
        facts.client, facts.node
    )
}

fn closing(snapshot: &Snapshot, verdict: &Verdict, tags: &Tags, marked: bool) -> String {
    let profiles = names(snapshot, ListKind::Profiles, &tags.profiles);
    let mark = if marked { "; DO_NOT_BYPASS" } else { "" };
    match verdict {
        Verdict::Permit(permit) => {
            let upgrade = if permit.upgrade_allowed() { "; the protocol change asked for is allowed" } else { "" };
            format!("Verdict: ALLOW by {}; profiles: {profiles}{mark}{upgrade}", permit.rule(snapshot))
        }
        Verdict::Deny(denial) => {
            let (rule, reason) = (denial.rule(snapshot), denial.reason(snapshot));
            format!("Verdict: DENY by {rule}: {reason}; profiles: {profiles}{mark}")
        }
    }
}

fn names(snapshot: &Snapshot, kind: ListKind, bits: &Bits) -> String {
    let mut names = String::new();
    snapshot.write_names(kind, bits, &mut names);
    if names.is_empty() { "none".to_string() } else { names }
}

fn place(snapshot: &Snapshot, rule: RuleId) -> &str {
    snapshot.rule(rule).map_or("", |rule| &rule.place)
}

/// `Access Profiles: access_profiles[3] "Block social"`
fn title(snapshot: &Snapshot, rule: RuleId) -> String {
    let section = snapshot.rule_section(rule);
    let name = snapshot.rule_name(rule).strip_prefix(section).unwrap_or("").trim_start_matches(": ");
    format!("{section}: {} \"{name}\"", place(snapshot, rule))
}

fn effect(snapshot: &Snapshot, profile: &ArchivedAccessProfile) -> String {
    let action = match profile.action {
        ArchivedAction::Allow => "ALLOW",
        ArchivedAction::Deny => "DENY",
        ArchivedAction::Inherit => "INHERIT, the walk goes on",
        ArchivedAction::DoNotBypass => "DO_NOT_BYPASS, the walk goes on",
    };
    let added = Bits(profile.add_profiles.map(|word| word.to_native()));
    let removed = Bits(profile.remove_profiles.map(|word| word.to_native()));
    let mut words = action.to_string();
    if !added.is_empty() {
        words.push_str(&format!("; adds {}", names(snapshot, ListKind::Profiles, &added)));
    }
    if !removed.is_empty() {
        words.push_str(&format!("; removes {}", names(snapshot, ListKind::Profiles, &removed)));
    }
    words
}

fn miss_words(miss: request_types::Miss, facts: &Facts) -> String {
    use request_types::Miss;
    match miss {
        Miss::Method => format!("the method is {}", facts.method),
        Miss::Scheme => "the scheme is another one".to_string(),
        Miss::Port => format!("the port is {}", facts.port),
        Miss::Host => format!("the host is {}", facts.host),
        Miss::Path => {
            format!("the path is {}", if facts.path.is_empty() { "not seen in a tunnel" } else { facts.path })
        }
        Miss::Header(number) => format!("header test {number} does not hold"),
    }
}

fn profile_miss(snapshot: &Snapshot, miss: access_profiles::Miss, facts: &Facts, tags: &Tags) -> String {
    use access_profiles::Miss;
    let list = |words: &str, kind: ListKind| format!("{words}: {}", names(snapshot, kind, tags.of(kind)));
    match miss {
        Miss::Disabled => "it is switched off (enabled = false)".to_string(),
        Miss::Nodes => format!("it is for other nodes than {}", facts.node),
        Miss::Profiles => list("by profiles; the request has", ListKind::Profiles),
        Miss::TimeProfiles => list("by time_profiles; now is", ListKind::TimeProfiles),
        Miss::UserGroups => list("by user_groups; the client is in", ListKind::UserGroups),
        Miss::RequestTypes => list("by request_types; the request is", ListKind::RequestTypes),
        Miss::Categories => list("by categories; the host is", ListKind::Categories),
    }
}
