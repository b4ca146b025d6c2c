//! Random policies and random requests: what `decide` finds by tables and sets of rules is what a plain walk finds, rule by
//! rule and field by field, as docs/policy.md tells it.

use super::*;

const METHODS: [&str; 4] = ["GET", "POST", "PUT", "get"];
const SCHEMES: [&str; 3] = ["http", "https", "tunnel"];
const PORTS: [(u16, u16); 6] = [(80, 80), (443, 443), (1, 65535), (80, 90), (8000, 65535), (85, 8000)];
const HOSTS: [&str; 6] = ["a.test", "b.a.test", "c.b.a.test", "test", "ba.test", "10.0.0.1"];
const HOST_REGEXES: [&str; 3] = ["^b", "a\\.test$", "\\d"];
const PATHS: [&str; 9] = ["/", "/a", "/a/", "/a/b", "/ab", "/b", "/a/b.exe", "/private", "/ab/"];
const PATH_REGEXES: [&str; 2] = ["\\.exe$", "^/ab?/"];
/// Names of fields as a test and as a request may write them.
const FIELDS: [&str; 5] = ["User-Agent", "user-agent", "X-Tag", "X-TAG", "Accept"];
/// What a test looks for, and what a request says.
const TEXTS: [&str; 12] =
    ["Mozilla/5.0", "curl/8", "CURL", "", "a", "ab", "Bab", "abab", "cabd", "\u{e9}A", " b", "xxababcabdx\u{c9}a"];
const FIELD_REGEXES: [&str; 5] = ["^cu", "b$", "a.?b", "^$", "\\d"];
const NODES: [&str; 4] = ["edge-1", "EDGE-2", "edge-3", "Edge-1"];
/// Days of each time profile, in bits from Monday.
const DAYS: [(&str, u8); 3] = [("[\"mon..fri\"]", 0x1f), ("[\"sat\", \"sun\"]", 0x60), ("[\"wed\"]", 0x04)];
/// Clients and their groups, top down.
const GROUPS: [(&str, [u8; 2], &[usize]); 3] =
    [("10.0.0.0/16", [10, 0], &[0]), ("10.1.0.0/16", [10, 1], &[0, 1]), ("any", [0, 0], &[2])];
const PROFILES: usize = 4;
const ACTIONS: [&str; 4] = ["INHERIT", "INHERIT", "DO_NOT_BYPASS", "ALLOW"];

/// Which of a pool are meant.
type Which = Vec<usize>;
/// (refused, which).
type Asked = Vec<(bool, usize)>;

#[derive(Clone, Debug)]
struct Type {
    methods: Which,
    schemes: Which,
    ports: Which,
    hosts: Which,
    suffixes: Which,
    host_regex: Which,
    prefixes: Which,
    path_regex: Which,
    tests: Vec<Test>,
}

/// A question to a field.
#[derive(Clone, Debug)]
struct Test {
    field: usize,
    equals: Which,
    contains: Which,
    regex: Which,
}

#[derive(Clone, Debug)]
struct Rule {
    enabled: bool,
    nodes: Asked,
    profiles: Asked,
    times: Asked,
    groups: Asked,
    types: Asked,
    categories: Asked,
    adds: Which,
    removes: Which,
    action: usize,
}

#[derive(Clone, Debug)]
struct Policy {
    types: Vec<Type>,
    categories: Vec<Which>,
    /// How many rules that hold for nobody stand before rule so-and-so.
    gap: (usize, usize),
    /// How many types that hold for nothing stand before the others.
    idle_types: usize,
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Request {
    client: [u8; 4],
    method: usize,
    scheme: usize,
    port: u16,
    host: usize,
    path: usize,
    /// (name, value)
    fields: Vec<(usize, usize)>,
    node: usize,
    day: u8,
}

fn some(pool: usize, often: f64) -> impl Strategy<Value = Which> {
    prop_oneof![
        ((1.0 - often) * 100.0) as u32 => Just(Vec::new()),
        (often * 100.0) as u32 => prop::collection::vec(0..pool, 1..3),
    ]
}

fn asked(pool: usize) -> impl Strategy<Value = Asked> {
    prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec((prop::bool::weighted(0.3), 0..pool), 1..3)]
}

fn a_test() -> impl Strategy<Value = Test> {
    (0..FIELDS.len(), some(TEXTS.len(), 0.5), some(TEXTS.len(), 0.5), some(FIELD_REGEXES.len(), 0.5))
        .prop_map(|(field, equals, contains, regex)| Test { field, equals, contains, regex })
}

fn a_type() -> impl Strategy<Value = Type> {
    let fields = (
        some(METHODS.len(), 0.2),
        some(SCHEMES.len(), 0.2),
        some(PORTS.len(), 0.2),
        some(HOSTS.len(), 0.2),
        some(HOSTS.len(), 0.2),
    );
    let tests = prop_oneof![3 => Just(Vec::new()), 2 => prop::collection::vec(a_test(), 1..7)];
    let more = (some(HOST_REGEXES.len(), 0.2), some(PATHS.len(), 0.4), some(PATH_REGEXES.len(), 0.2), tests);
    (fields, more).prop_map(
        |((methods, schemes, ports, hosts, suffixes), (host_regex, prefixes, path_regex, tests))| Type {
            methods,
            schemes,
            ports,
            hosts,
            suffixes,
            host_regex,
            prefixes,
            path_regex,
            tests,
        },
    )
}

fn a_rule(types: usize, categories: usize) -> impl Strategy<Value = Rule> {
    let conditions = (
        asked(NODES.len()),
        asked(PROFILES),
        asked(DAYS.len()),
        asked(GROUPS.len()),
        asked(types),
        asked(categories + 1),
    );
    let effect = (prop::bool::weighted(0.9), some(PROFILES, 0.5), some(PROFILES, 0.3), 0..20_usize);
    (conditions, effect).prop_map(
        |((nodes, profiles, times, groups, types, categories), (enabled, adds, removes, action))| Rule {
            enabled,
            nodes,
            profiles,
            times,
            groups,
            types,
            categories,
            adds,
            removes,
            action,
        },
    )
}

fn a_policy() -> impl Strategy<Value = Policy> {
    let rules = prop::collection::vec(a_rule(6, 3), 0..40);
    let gap = prop_oneof![3 => Just((0, 0)), 1 => (0..40_usize, prop::sample::select(vec![60, 490, 1_030]))];
    let idle = prop::sample::select(vec![0, 0, 61, 200]);
    let categories = prop::collection::vec(prop::collection::vec(0..HOSTS.len(), 1..3), 3);
    (prop::collection::vec(a_type(), 6), categories, gap, idle, rules)
        .prop_map(|(types, categories, gap, idle_types, rules)| Policy { types, categories, gap, idle_types, rules })
}

fn a_request() -> impl Strategy<Value = Request> {
    let fields = prop::collection::vec((0..FIELDS.len(), 0..TEXTS.len()), 0..5);
    let from = (9..12_u8, 0..3_u8, fields, 0..NODES.len() + 1, 0..7_u8);
    let port =
        prop_oneof![prop::sample::select(vec![0_u16, 1, 80, 84, 85, 90, 91, 443, 7999, 8000, 65535]), any::<u16>()];
    let what = (0..METHODS.len(), 0..SCHEMES.len(), port, 0..HOSTS.len() * 2 + 1, 0..PATHS.len() * 2 + 1);
    (from, what).prop_map(|((first, second, fields, node, day), (method, scheme, port, host, path))| Request {
        client: [first, second, 0, 1],
        method,
        scheme,
        port,
        host,
        path,
        fields,
        node,
        day,
    })
}

/// `key = ["x", "y"]`, or nothing.
fn line(key: &str, which: &[usize], name: impl Fn(usize) -> String) -> String {
    if which.is_empty() {
        return String::new();
    }
    let names: Vec<String> = which.iter().map(|which| format!("'{}'", name(*which))).collect();
    format!("{key} = [{}]\n", names.join(", "))
}

fn asking(key: &str, asked: &Asked, name: impl Fn(usize) -> String) -> String {
    let names: Vec<String> =
        asked.iter().map(|(not, which)| format!("'{}{}'", if *not { "!" } else { "" }, name(*which))).collect();
    if names.is_empty() { String::new() } else { format!("{key} = [{}]\n", names.join(", ")) }
}

fn category(number: usize) -> String {
    if number == 0 { "Unknown".to_string() } else { format!("C{number}") }
}

impl Type {
    /// A type that asks for nothing is refused: this one asks for any port then.
    fn asks_nothing(&self) -> bool {
        let lists = [
            &self.methods,
            &self.schemes,
            &self.ports,
            &self.hosts,
            &self.suffixes,
            &self.host_regex,
            &self.prefixes,
            &self.path_regex,
        ];
        lists.iter().all(|list| list.is_empty()) && self.tests.is_empty()
    }

    fn text(&self, number: usize) -> String {
        let mut text = format!("[[request_types]]\nname = 'R{number}'\n");
        text += &line("methods", &self.methods, |at| METHODS[at].to_uppercase());
        text += &line("schemes", &self.schemes, |at| SCHEMES[at].to_string());
        text += &line("ports", &self.ports, |at| format!("{}-{}", PORTS[at].0, PORTS[at].1));
        text += &line("hosts", &self.hosts, |at| HOSTS[at].to_string());
        text += &line("host_suffixes", &self.suffixes, |at| HOSTS[at].to_string());
        text += &line("host_regex", &self.host_regex, |at| HOST_REGEXES[at].to_string());
        text += &line("path_prefixes", &self.prefixes, |at| PATHS[at].to_string());
        text += &line("path_regex", &self.path_regex, |at| PATH_REGEXES[at].to_string());
        if self.asks_nothing() {
            text += "ports = ['any']\n";
        }
        text + &self.tests.iter().map(Test::text).collect::<String>()
    }

    fn holds(&self, facts: &Facts, fields: &[(&str, &str)]) -> bool {
        let one_of = |list: &Which, holds: &dyn Fn(usize) -> bool| list.is_empty() || list.iter().any(|at| holds(*at));
        let scheme = |at: usize| match SCHEMES[at] {
            "http" => facts.scheme == Scheme::Http,
            "https" => facts.scheme == Scheme::Https || (facts.scheme == Scheme::Tunnel && facts.port == 443),
            _ => facts.scheme == Scheme::Tunnel,
        };
        let host_regex = |at: usize| match at {
            0 => facts.host.starts_with('b'),
            1 => facts.host.ends_with("a.test"),
            _ => facts.host.bytes().any(|byte| byte.is_ascii_digit()),
        };
        let path_regex = |at: usize| match at {
            0 => facts.path.ends_with(".exe"),
            _ => facts.path.starts_with("/a/") || facts.path.starts_with("/ab/"),
        };
        let host = self.hosts.iter().any(|at| HOSTS[*at] == facts.host)
            || self.suffixes.iter().any(|at| lies_under(facts.host, HOSTS[*at]))
            || self.host_regex.iter().any(|at| host_regex(*at));
        let path = self.prefixes.iter().any(|at| facts.path.starts_with(PATHS[*at]))
            || self.path_regex.iter().any(|at| path_regex(*at));
        one_of(&self.methods, &|at| METHODS[at].to_uppercase() == facts.method)
            && one_of(&self.schemes, &scheme)
            && one_of(&self.ports, &|at| (PORTS[at].0..=PORTS[at].1).contains(&facts.port))
            && (host || self.hosts.is_empty() && self.suffixes.is_empty() && self.host_regex.is_empty())
            && (path || self.prefixes.is_empty() && self.path_regex.is_empty())
            && self.tests.iter().all(|test| test.holds(fields))
            && (!self.asks_nothing() || facts.port > 0)
    }
}

impl Test {
    fn text(&self) -> String {
        let mut text = format!("[[request_types.headers]]\nname = '{}'\n", FIELDS[self.field]);
        text += &line("equals", &self.equals, |at| TEXTS[at].to_string());
        text += &line("contains", &self.contains, |at| TEXTS[at].to_string());
        text + &line("regex", &self.regex, |at| FIELD_REGEXES[at].to_string())
    }

    fn holds(&self, fields: &[(&str, &str)]) -> bool {
        let named = |(name, _): &&(&str, &str)| name.eq_ignore_ascii_case(FIELDS[self.field]);
        let Some((_, value)) = fields.iter().find(named) else { return false };
        let (value, text) = (value.to_ascii_lowercase(), |at: usize| TEXTS[at].to_ascii_lowercase());
        let regex = |at: usize| match at {
            0 => value.starts_with("cu"),
            1 => value.ends_with('b'),
            2 => (0..value.len()).any(|from| {
                let from = &value.as_bytes()[from..];
                from.starts_with(b"ab") || from.len() > 2 && from[0] == b'a' && from[2] == b'b'
            }),
            3 => value.is_empty(),
            _ => value.bytes().any(|byte| byte.is_ascii_digit()),
        };
        let present = self.equals.is_empty() && self.contains.is_empty() && self.regex.is_empty();
        present
            || self.equals.iter().any(|at| value == text(*at))
            || self.contains.iter().any(|at| value.contains(&text(*at)))
            || self.regex.iter().any(|at| regex(*at))
    }
}

fn lies_under(host: &str, domain: &str) -> bool {
    host == domain || host.ends_with(&format!(".{domain}"))
}

/// Nothing lies under an address.
fn on_list(host: &str, listed: &str) -> bool {
    if listed.parse::<IpAddr>().is_ok() { host == listed } else { lies_under(host, listed) }
}

impl Rule {
    fn text(&self, number: usize) -> String {
        let mut text = format!("[[access_profiles]]\nname = 'rule {number}'\nenabled = {}\n", self.enabled);
        text += &asking("nodes", &self.nodes, |at| NODES[at].to_string());
        text += &asking("profiles", &self.profiles, |at| format!("P{at}"));
        text += &asking("time_profiles", &self.times, |at| format!("T{at}"));
        text += &asking("user_groups", &self.groups, |at| format!("G{at}"));
        text += &asking("request_types", &self.types, |at| format!("R{at}"));
        text += &asking("categories", &self.categories, category);
        text += &line("add_profiles", &self.adds, |at| format!("P{at}"));
        text += &line("remove_profiles", &self.removes, |at| format!("P{at}"));
        text + &format!("action = '{}'\n", self.action())
    }

    fn action(&self) -> &'static str {
        if self.action == 19 { "DENY" } else { ACTIONS.get(self.action).copied().unwrap_or("INHERIT") }
    }
}

/// What the plain walk finds: verdict, mark, and the numbers on each list.
#[derive(Debug, PartialEq)]
struct Found {
    verdict: String,
    marked: bool,
    lists: Vec<String>,
}

impl Policy {
    fn document(&self) -> String {
        let mut text = "[access_restriction]\ndefault = 'deny'\n".to_string();
        for (addresses, _, groups) in GROUPS {
            text += &format!("[[access_restriction.allow]]\naddresses = ['{addresses}']\n");
            text += &line("user_groups", groups, |at| format!("G{at}"));
        }
        text += "[network]\nconnect_ports = ['any']\n";
        for (number, hosts) in self.categories.iter().enumerate() {
            text += &format!("[[categories]]\nname = '{}'\n", category(number + 1));
            text += &line("hosts", hosts, |at| HOSTS[at].to_string());
        }
        for (number, (days, _)) in DAYS.iter().enumerate() {
            text += &format!("[[time_profiles]]\nname = 'T{number}'\ndays = {days}\ntimezone = 'UTC'\n");
        }
        for number in 0..self.idle_types {
            text += &format!("[[request_types]]\nname = 'idle {number}'\npath_prefixes = ['/a/nobody-{number}']\n");
        }
        text += &self.types.iter().enumerate().map(|(number, t)| t.text(number)).collect::<String>();
        // Switched off: it only defines the profiles.
        text += "[[access_profiles]]\nname = 'names'\nenabled = false\nadd_profiles = ['P0', 'P1', 'P2', 'P3']\n";
        for (number, rule) in self.rules.iter().enumerate() {
            if number == self.gap.0 {
                for idle in 0..self.gap.1 {
                    let asks = [
                        "nodes = ['nowhere']",
                        "profiles = ['P0', '!P0', 'P1', '!P1']\nuser_groups = ['!G0', '!G2']",
                        "enabled = false",
                    ][idle % 3];
                    text += &format!("[[access_profiles]]\nname = 'idle {idle}'\n{asks}\naction = 'DENY'\n");
                }
            }
            text += &rule.text(number);
        }
        text
    }

    fn walk(&self, facts: &Facts, request: &Request, fields: &[(&str, &str)]) -> Found {
        let day = |at: &usize| DAYS[*at].1 & 1 << request.day != 0;
        let times: Vec<usize> = (0..DAYS.len()).filter(day).collect();
        let types: Vec<usize> = (0..self.types.len()).filter(|at| self.types[*at].holds(facts, fields)).collect();
        let in_category = |at: &usize| self.categories[at - 1].iter().any(|host| on_list(facts.host, HOSTS[*host]));
        let mut categories: Vec<usize> = (1..=self.categories.len()).filter(in_category).collect();
        if categories.is_empty() {
            categories.push(0);
        }
        let client = [request.client[0], request.client[1]];
        let groups = GROUPS.iter().find(|(addresses, first, _)| *addresses == "any" || *first == client).unwrap().2;
        let mut profiles: Vec<usize> = Vec::new();
        let (mut marked, mut verdict) = (false, "DENY Access Profiles: default policy".to_string());
        for (number, rule) in self.rules.iter().enumerate() {
            let node: Vec<usize> = (0..NODES.len()).filter(|at| NODES[*at].eq_ignore_ascii_case(facts.node)).collect();
            let holds = rule.enabled
                && condition(&rule.nodes, &node)
                && condition(&rule.profiles, &profiles)
                && condition(&rule.times, &times)
                && condition(&rule.groups, groups)
                && condition(&rule.types, &types)
                && condition(&rule.categories, &categories);
            if !holds {
                continue;
            }
            profiles.extend(&rule.adds);
            profiles.retain(|profile| !rule.removes.contains(profile));
            match rule.action() {
                "DO_NOT_BYPASS" => marked = true,
                "INHERIT" => {}
                decides => {
                    verdict = format!("{decides} Access Profiles: rule {number}");
                    break;
                }
            }
        }
        profiles.sort_unstable();
        profiles.dedup();
        let names =
            |list: &[usize], letter: &str| list.iter().map(|at| format!("{letter}{at}")).collect::<Vec<_>>().join(",");
        let categories: Vec<String> = categories.into_iter().map(category).collect();
        let lists = vec![
            names(&times, "T"),
            names(groups, "G"),
            names(&types, "R"),
            categories.join(","),
            names(&profiles, "P"),
        ];
        Found { verdict, marked, lists }
    }
}

fn condition(asked: &Asked, has: &[usize]) -> bool {
    let wants = asked.iter().any(|(not, _)| !not);
    let met = asked.iter().any(|(not, which)| !not && has.contains(which));
    let refused = asked.iter().any(|(not, which)| *not && has.contains(which));
    (!wants || met) && !refused
}

const LISTS: [ListKind; 5] =
    [ListKind::TimeProfiles, ListKind::UserGroups, ListKind::RequestTypes, ListKind::Categories, ListKind::Profiles];

fn same_as_the_plain_walk(policy: &Policy, requests: &[Request]) {
    let document = policy.document();
    let snapshot = snapshot(&document);
    for request in requests {
        let host = match HOSTS.get(request.host) {
            Some(host) => host.to_string(),
            None => HOSTS.get(request.host - HOSTS.len()).map_or(String::new(), |host| format!("w.{host}")),
        };
        let path = match PATHS.get(request.path) {
            Some(path) => path.to_string(),
            None => PATHS.get(request.path - PATHS.len()).map_or(String::new(), |path| format!("{path}z.exe")),
        };
        let fields: Vec<_> = request.fields.iter().map(|(name, value)| (FIELDS[*name], TEXTS[*value])).collect();
        let fields = &fields[..];
        let facts = Facts {
            client: request.client.into(),
            method: METHODS[request.method],
            scheme: [Scheme::Http, Scheme::Https, Scheme::Tunnel][request.scheme],
            // The document allows tunnels to any port, and 0 is none.
            port: if request.scheme == 2 { request.port.max(1) } else { request.port },
            host: &host,
            path: &path,
            headers: &fields,
            node: NODES.get(request.node).unwrap_or(&"edge-9"),
            // 2026-03-02 was a Monday.
            now: Wall(at("2026-03-02T10:00:00Z").0 + i64::from(request.day) * 86_400_000_000),
            ..facts()
        };
        let found = Found {
            verdict: verdict(&snapshot, &facts),
            marked: policy::decide(&snapshot, &facts).do_not_bypass,
            lists: LISTS.map(|kind| list(&snapshot, &facts, kind)).to_vec(),
        };
        let expected = policy.walk(&facts, request, fields);
        let told = policy::explain(&snapshot, &facts).1.join("\n");
        assert_eq!(found, expected, "{request:?} under\n{document}\n{told}");
        assert!(
            !told.contains("not matched: \n") && !told.contains("not matched\n"),
            "each miss has a reason:\n{told}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_walk_by_sets_is_the_walk_rule_by_rule(policy in a_policy(), requests in prop::collection::vec(a_request(), 20)) {
        same_as_the_plain_walk(&policy, &requests);
    }
}
