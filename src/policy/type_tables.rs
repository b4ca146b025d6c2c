//! Which request types a request is of, without a look at one after the other. Each field has a table from what a request
//! may have there to the set of types that accept it; what every table accepts is of the type. Regular expressions are
//! looked for in sets ([`super::regex_sets`]), header tests in tables of their own ([`super::header_tables`]). Types with regular
//! expressions that fit no set are looked at one by one, and only if everything else holds.
//!
//! The table of hosts lies in the snapshot. The others are made from the types when it is opened (see
//! [`super::rule_sets`] for why).

use super::decision::Bits;
use super::facts::Facts;
use super::header_tables::HeaderTables;
use super::patterns::Pattern;
use super::regex_sets::HeaderSet;
use super::regex_sets::RegexSets;
use super::sections::request_types;
use super::snapshot::body::ArchivedBody;
use super::snapshot::body::ArchivedPortRange;
use super::snapshot::body::ArchivedRequestType;
use crate::limits::POLICY_NAMES_PER_LIST_MAX;

/// The request types of a policy, by what they ask for.
pub struct TypeTables {
    /// Types that accept the schemes which the index has as bits.
    schemes: [Bits; request_types::SCHEMES_ALL as usize + 1],
    methods: Methods,
    ports: Ports,
    /// Types that do not ask for a host.
    any_host: Bits,
    /// Types that know a host by regular expressions that are in no set.
    host_regex: Bits,
    host_sets: RegexSets,
    /// Types that do not ask for a path.
    any_path: Bits,
    path_prefixes: Prefixes,
    /// Types that know a path by regular expressions that are in no set.
    path_regex: Bits,
    path_sets: RegexSets,
    headers: HeaderTables,
}

impl TypeTables {
    /// Of a policy's types, in their order, and the sets of their regular expressions.
    pub fn new(
        types: &[ArchivedRequestType],
        host_sets: RegexSets,
        path_sets: RegexSets,
        header_sets: Vec<HeaderSet>,
    ) -> TypeTables {
        let those = |which: fn(&ArchivedRequestType) -> bool| {
            let mut those = Bits::default();
            types.iter().enumerate().filter(|(_, t)| which(t)).for_each(|(number, _)| those.insert(number));
            those
        };
        let mut schemes = [Bits::default(); request_types::SCHEMES_ALL as usize + 1];
        for (number, t) in types.iter().enumerate() {
            let accepts = |seen: &usize| t.schemes == 0 || usize::from(t.schemes) & seen != 0;
            (0..schemes.len()).filter(accepts).for_each(|seen| schemes[seen].insert(number));
        }
        TypeTables {
            schemes,
            methods: Methods::new(types),
            ports: Ports::new(types),
            any_host: those(|t| !t.asks_host()),
            host_regex: those(|t| !t.host_regex.is_empty()).without(host_sets.types()),
            host_sets,
            any_path: those(|t| !t.asks_path()),
            path_prefixes: Prefixes::new(types),
            path_regex: those(|t| !t.path_regex.is_empty()).without(path_sets.types()),
            path_sets,
            headers: HeaderTables::new(types, header_sets),
        }
    }

    /// The types of a request.
    #[inline]
    pub fn of(&self, facts: &Facts, body: &ArchivedBody, patterns: &[Pattern]) -> Bits {
        let mut types = self.schemes[usize::from(request_types::scheme_bits(facts) & request_types::SCHEMES_ALL)];
        if types.is_empty() {
            return types;
        }
        self.methods.narrow(facts.method, &mut types);
        self.ports.narrow(facts.port, &mut types);
        let mut host = self.any_host;
        host.add(&body.type_hosts.find(facts.host.as_bytes()));
        let mut path = self.any_path;
        self.path_prefixes.find(facts.path.as_bytes()).into_iter().for_each(|known| path.add(known));
        // A pass over the text only if it may add a type that nothing else has excluded.
        self.host_sets.find(facts.host.as_bytes(), &types.without(&host), &mut host);
        types.keep(&host.with(&self.host_regex));
        self.path_sets.find(facts.path.as_bytes(), &types.without(&path), &mut path);
        types.keep(&path.with(&self.path_regex));
        self.headers.narrow(facts, body, patterns, &mut types);
        let mut open = Bits::default();
        open.add(&self.host_regex);
        open.remove(&host);
        open.add(&self.path_regex.without(&path));
        for number in open.common(&types).iter() {
            let (host, path) = (host.contains(number), path.contains(number));
            let holds = |t: &ArchivedRequestType| {
                (host || t.host_found(facts, patterns)) && (path || t.path_found(facts, patterns))
            };
            if !body.request_types.get(number).is_some_and(holds) {
                types.take(number);
            }
        }
        types
    }
}

/// Types by the methods they accept.
struct Methods {
    any: Bits,
    /// Ascending.
    named: Vec<(String, Bits)>,
}

impl Methods {
    fn new(types: &[ArchivedRequestType]) -> Methods {
        let mut any = Bits::default();
        let mut said: Vec<(&str, usize)> = Vec::new();
        for (number, t) in types.iter().enumerate() {
            if t.methods.is_empty() {
                any.insert(number);
            }
            said.extend(t.methods.iter().map(|method| (method.as_str(), number)));
        }
        let named = grouped(said).into_iter().map(|(method, types)| (method.to_string(), types)).collect();
        Methods { any, named }
    }

    #[inline]
    fn narrow(&self, method: &str, types: &mut Bits) {
        if self.named.is_empty() {
            return;
        }
        let mut accept = self.any;
        if let Ok(at) = self.named.binary_search_by(|(known, _)| known.as_str().cmp(method)) {
            accept.add(&self.named[at].1);
        }
        types.keep(&accept);
    }
}

/// Equal keys joined, ascending; each with the set of what was said with it.
fn grouped<K: Ord + Copy>(mut said: Vec<(K, usize)>) -> Vec<(K, Bits)> {
    said.sort_unstable();
    let mut groups: Vec<(K, Bits)> = Vec::new();
    for (key, number) in said {
        match groups.last_mut() {
            Some((last, bits)) if *last == key => bits.insert(number),
            _ => {
                let mut bits = Bits::default();
                bits.insert(number);
                groups.push((key, bits));
            }
        }
    }
    groups
}

/// Types by the ports they accept: stretches of ports that the same types accept.
struct Ports {
    /// The first port of each stretch, ascending from 0, and its types; empty if no type asks for a port.
    stretches: Vec<(u16, Bits)>,
}

impl Ports {
    fn new(types: &[ArchivedRequestType]) -> Ports {
        let mut any = Bits::default();
        // Where a range of a type begins (+1) and where it has ended (-1).
        let mut edges: Vec<(u32, usize, i32)> = Vec::new();
        for (number, t) in types.iter().enumerate() {
            if t.ports.is_empty() {
                any.insert(number);
            }
            let ends =
                |range: &ArchivedPortRange| (u32::from(range.first.to_native()), u32::from(range.last.to_native()));
            for (first, last) in t.ports.iter().map(ends).filter(|(first, last)| first <= last) {
                edges.extend([(first, number, 1), (last + 1, number, -1)]);
            }
        }
        if types.iter().all(|t| t.ports.is_empty()) {
            return Ports { stretches: Vec::new() };
        }
        edges.sort_unstable();
        let mut depth = [0_i32; POLICY_NAMES_PER_LIST_MAX];
        let mut stretches = vec![(0, any)];
        for (port, number, change) in edges {
            depth[number] += change;
            // Behind the last port there is nothing.
            let Ok(port) = u16::try_from(port) else { continue };
            let mut accept = stretches.last().map_or(any, |last| last.1);
            accept.take(number);
            if depth[number] > 0 {
                accept.insert(number);
            }
            match stretches.last_mut() {
                Some(last) if last.0 == port => last.1 = accept,
                _ => stretches.push((port, accept)),
            }
        }
        Ports { stretches }
    }

    #[inline]
    fn narrow(&self, port: u16, types: &mut Bits) {
        if let Some(at) = self.stretches.partition_point(|(first, _)| *first <= port).checked_sub(1) {
            types.keep(&self.stretches[at].1);
        }
    }
}

/// Types by the beginnings of paths they accept.
///
/// Whatever known beginnings a path has, the last known one that is not greater than the path has them all as beginnings
/// too: between a beginning and what begins with it stands only what begins with it. So one search finds all: that last
/// one, or the longest beginning of it that is one of the path.
struct Prefixes {
    text: Vec<u8>,
    /// Ascending.
    known: Vec<Prefix>,
}

struct Prefix {
    start: u32,
    len: u32,
    /// The longest known beginning of this one but itself.
    shorter: Option<u32>,
    /// The types that accept it or a beginning of it.
    types: Bits,
}

impl Prefixes {
    fn new(types: &[ArchivedRequestType]) -> Prefixes {
        let all = types.iter().enumerate();
        let said = all.flat_map(|(number, t)| t.path_prefixes.iter().map(move |prefix| (prefix.as_bytes(), number)));
        let mut prefixes = Prefixes { text: Vec::new(), known: Vec::new() };
        // The last one taken and all known beginnings of it, the longest on top.
        let mut above: Vec<u32> = Vec::new();
        for (text, mut types) in grouped(said.collect()) {
            while let Some(last) = above.last().copied()
                && !text.starts_with(prefixes.text_of(&prefixes.known[last as usize]))
            {
                above.pop();
            }
            let shorter = above.last().copied();
            shorter.into_iter().for_each(|at| types.add(&prefixes.known[at as usize].types));
            above.push(prefixes.known.len() as u32);
            let (start, len) = (prefixes.text.len() as u32, text.len() as u32);
            prefixes.text.extend_from_slice(text);
            prefixes.known.push(Prefix { start, len, shorter, types });
        }
        prefixes
    }

    #[inline]
    fn find(&self, path: &[u8]) -> Option<&Bits> {
        let last = self.known.partition_point(|known| self.text_of(known) <= path).checked_sub(1)?;
        let mut found = &self.known[last];
        let shared = self.text_of(found).iter().zip(path).take_while(|(known, said)| known == said).count();
        while found.len as usize > shared {
            found = &self.known[found.shorter? as usize];
        }
        Some(&found.types)
    }

    #[inline]
    fn text_of(&self, known: &Prefix) -> &[u8] {
        &self.text[known.start as usize..][..known.len as usize]
    }
}
