//! Which route holds for a host and the profiles of a request, without a look at one after the other: the sets of routes that
//! name a domain above the host, and the sets that ask for its profiles ([`super::rule_sets`]). Made from the routes when a snapshot
//! is opened; [`ArchivedBody::route`](super::snapshot::body::ArchivedBody::route) says what must come out.

use super::decision::Bits;
use super::rule_sets;
use super::rule_sets::BLOCK_RULES;
use super::rule_sets::Block;
use super::rule_sets::Dimension;
use super::snapshot::body::ArchivedRoute;
use crate::limits::POLICY_ROUTES_MAX;
use std::collections::HashMap;

/// Routes that a policy may have, in blocks.
const BLOCKS: usize = POLICY_ROUTES_MAX.div_ceil(BLOCK_RULES);

/// A set of routes.
type Routes = [Block; BLOCKS];

/// Which routes name a domain.
enum Named {
    One(u16),
    /// Several; a set is joined with another at once, however many are in it.
    Several(Box<Routes>),
}

/// The routes by what they ask for.
pub struct RouteTable {
    /// Routes that are switched on, and no more blocks than there are routes for.
    enabled: Vec<Block>,
    profiles: Dimension,
    /// Routes for every host.
    any_host: Routes,
    /// Routes by the domains they name.
    domains: HashMap<Box<[u8]>, Named>,
    /// Of the longest of these domains, in bytes.
    longest: usize,
}

impl RouteTable {
    /// Of a policy's routes, in their order, of which there are no more than a policy may have.
    pub fn new(routes: &[ArchivedRoute]) -> RouteTable {
        let blocks = routes.len().div_ceil(BLOCK_RULES);
        let mut table = RouteTable {
            enabled: vec![Block::default(); blocks],
            profiles: Dimension::new(routes.iter().map(|route| rule_sets::asked(&route.profiles)), blocks),
            any_host: Default::default(),
            domains: HashMap::new(),
            longest: 0,
        };
        for (number, route) in routes.iter().enumerate().filter(|(_, route)| route.enabled) {
            rule_sets::insert(&mut table.enabled[number / BLOCK_RULES], number);
            if route.host_suffixes.is_empty() {
                insert(&mut table.any_host, number);
            }
            for domain in route.host_suffixes.iter() {
                table.longest = table.longest.max(domain.len());
                let first = Named::One(number as u16);
                let known = table.domains.entry(domain.as_bytes().into()).or_insert(first);
                known.add(number);
            }
        }
        table
    }

    /// The first route that holds.
    #[inline]
    pub fn find(&self, host: &str, profiles: &Bits) -> Option<u16> {
        if self.enabled.is_empty() {
            return None;
        }
        let named = self.named(host.as_bytes());
        for (block, enabled) in self.enabled.iter().enumerate() {
            let mut hold = *enabled;
            hold.iter_mut().zip(&named[block]).for_each(|(hold, named)| *hold &= named);
            self.profiles.narrow(block, profiles, &mut hold);
            if let Some(word) = hold.iter().position(|word| *word != 0) {
                return Some((block * BLOCK_RULES + word * 64) as u16 + hold[word].trailing_zeros() as u16);
            }
        }
        None
    }

    /// The routes that are for this host.
    fn named(&self, host: &[u8]) -> Routes {
        let mut named = self.any_host;
        if self.domains.is_empty() {
            return named;
        }
        // The host itself, and what follows each of its dots.
        let above = (0..=host.len()).filter(|at| *at == 0 || host[at - 1] == b'.').map(|at| &host[at..]);
        for domain in above.filter(|domain| domain.len() <= self.longest) {
            match self.domains.get(domain) {
                Some(Named::One(number)) => insert(&mut named, usize::from(*number)),
                Some(Named::Several(routes)) => {
                    named
                        .as_flattened_mut()
                        .iter_mut()
                        .zip(routes.as_flattened())
                        .for_each(|(word, more)| *word |= more);
                }
                None => {}
            }
        }
        named
    }
}

impl Named {
    fn add(&mut self, number: usize) {
        match self {
            Named::One(known) if usize::from(*known) == number => {}
            Named::One(known) => {
                let mut routes = Box::new(Routes::default());
                [usize::from(*known), number].into_iter().for_each(|number| insert(&mut routes, number));
                *self = Named::Several(routes);
            }
            Named::Several(routes) => insert(routes, number),
        }
    }
}

fn insert(routes: &mut Routes, number: usize) {
    rule_sets::insert(&mut routes[number / BLOCK_RULES], number);
}

#[cfg(test)]
mod tests {
    use crate::policy;
    use crate::policy::NoFiles;
    use crate::policy::Snapshot;
    use crate::policy::decision::Tags;
    use proptest::prelude::*;

    fn any_route() -> impl Strategy<Value = String> {
        let condition = prop_oneof![
            Just(String::new()),
            "P[0-4]".prop_map(|name| format!("profiles = [\"{name}\"]\n")),
            "P[0-4]".prop_map(|name| format!("profiles = [\"!{name}\"]\n")),
            ("P[0-4]", "P[0-4]").prop_map(|(one, other)| format!("profiles = [\"{one}\", \"!{other}\"]\n")),
        ];
        let hosts = prop_oneof![
            1 => Just(String::new()),
            4 => prop::collection::vec("[ab]{1,2}(\\.[ab]){0,2}", 1..4)
                .prop_map(|hosts| format!("host_suffixes = {hosts:?}\n")),
        ];
        (condition, hosts, prop::bool::weighted(0.9)).prop_map(|(condition, hosts, enabled)| {
            format!("[[routes]]\nvia = \"direct\"\nenabled = {enabled}\n{condition}{hosts}")
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]

        #[test]
        fn the_table_finds_the_route_that_a_walk_through_the_routes_finds(
            routes in prop::collection::vec(any_route(), 0..40),
            idle in 0_usize..1000,
            hosts in prop::collection::vec("\\.?[ab]{1,3}(\\.[ab]{1,2}){0,3}\\.?", 30),
            profiles in prop::collection::vec(prop::collection::vec(0_usize..5, 0..4), 30),
        ) {
            let mut document = "[access_restriction]\ndefault = \"allow\"\n".to_string();
            for number in 0..5 {
                document += &format!("[[access_profiles]]\nname = \"{number}\"\nadd_profiles = [\"P{number}\"]\n");
            }
            // In front of those there may be so many that hold for nobody here that the walk goes on to another block.
            document += &"[[routes]]\nvia = \"direct\"\nhost_suffixes = [\"z.test\"]\n".repeat(idle.saturating_sub(400));
            document += &routes.concat();
            let file = policy::compile(&document, 1, &NoFiles).unwrap_or_else(|complaints| panic!("{complaints:?}\n{document}"));
            let snapshot = Snapshot::open(&file).unwrap();
            for (host, profiles) in hosts.iter().zip(profiles) {
                let mut tags = Tags::default();
                profiles.iter().for_each(|number| tags.profiles.insert(*number));
                let (found, walked) = (snapshot.route(host, &tags), snapshot.body().route(host, &tags));
                prop_assert_eq!(found, walked, "{} with {:?} under\n{}", host, profiles, routes.concat());
            }
        }
    }

    #[test]
    fn as_many_routes_as_a_policy_may_have_are_all_found() {
        let mut document = "[access_restriction]\ndefault = \"allow\"\n".to_string();
        for number in 0..crate::limits::POLICY_ROUTES_MAX {
            document += &format!("[[routes]]\nvia = \"direct\"\nhost_suffixes = [\"h{number}.test\"]\n");
        }
        let snapshot = Snapshot::open(&policy::compile(&document, 1, &NoFiles).unwrap()).unwrap();
        for number in 0..crate::limits::POLICY_ROUTES_MAX {
            assert_eq!(snapshot.route(&format!("www.h{number}.test"), &Tags::default()), Some(number as u16));
        }
        assert_eq!(snapshot.route("test", &Tags::default()), None);
    }
}
