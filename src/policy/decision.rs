//! What a decision is: a permit or a denial, and the tags the request got on the way.

use super::snapshot::Snapshot;

/// The outcome of [`super::decide`].
#[derive(Debug)]
pub struct Decision {
    /// May it go out?
    pub verdict: Verdict,
    /// What the request was found to be; [`Snapshot::write_list`] turns it into names.
    pub tags: Tags,
    /// A rule with the action DO_NOT_BYPASS matched: a user must not be offered a way around a block.
    pub do_not_bypass: bool,
}

/// May a request go out?
#[derive(Debug)]
pub enum Verdict {
    /// Yes, and this is the value that `upstream::open` takes.
    Permit(Permit),
    /// No.
    Deny(Denial),
}

/// The permission to open one upstream. Only [`super::decide`] makes one; it can be neither cloned nor copied.
#[derive(Debug)]
pub struct Permit {
    pub(super) rule: RuleId,
    pub(super) upgrade: bool,
    pub(super) route: Option<u16>,
}

impl Permit {
    /// The rule that allowed it, such as `Access Profiles: Staff`. `snapshot` is the one that decided.
    pub fn rule<'s>(&self, snapshot: &'s Snapshot) -> &'s str {
        snapshot.rule_name(self.rule)
    }

    /// The route by which it leaves (its number in [`Snapshot::routes`]); `None`: straight to the origin.
    #[inline]
    pub fn route(&self) -> Option<usize> {
        self.route.map(usize::from)
    }

    /// Whether the protocol change that the request asks for (its Upgrade field) is allowed; false if it asks for none.
    pub fn upgrade_allowed(&self) -> bool {
        self.upgrade
    }
}

/// Why a request may not go out. Texts are read from the snapshot that decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denial {
    pub(super) rule: RuleId,
    pub(super) why: Why,
    /// The template of the block page.
    pub template: TemplateId,
}

impl Denial {
    /// The rule that denied it, such as `Access Profiles: Block social`.
    pub fn rule<'s>(&self, snapshot: &'s Snapshot) -> &'s str {
        snapshot.rule_name(self.rule)
    }

    /// The section of the rule (the log's filter_name), such as `Access Profiles`.
    pub fn section<'s>(&self, snapshot: &'s Snapshot) -> &'s str {
        snapshot.rule_section(self.rule)
    }

    /// Why, for the person in front of the block page and the log's filtering_reason.
    pub fn reason<'s>(&self, snapshot: &'s Snapshot) -> &'s str {
        match self.why {
            Why::Rule => snapshot.rule_reason(self.rule),
            Why::NoProxyRight => "your address may not send plain requests through this proxy (right PROXY)",
            Why::NoConnectRight => "your address may not open tunnels through this proxy (right CONNECT)",
            Why::NotAuthenticated => "this policy requires authentication and the request carries no user",
        }
    }
}

/// Where a denial's reason comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The rule says it.
    Rule,
    /// The Access Restriction entry lacks the right PROXY.
    NoProxyRight,
    /// The Access Restriction entry lacks the right CONNECT.
    NoConnectRight,
    /// The Access Restriction entry asks for a user and there is none.
    NotAuthenticated,
}

/// A rule of one snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleId(pub(super) u32);

/// A block page template of one snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TemplateId(pub(super) u16);

/// What a client's address may do, by Access Restriction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights(pub(super) u8);

impl Rights {
    /// Send plain requests through the proxy.
    pub const PROXY: Rights = Rights(1);
    /// Open tunnels (CONNECT).
    pub const CONNECT: Rights = Rights(2);
    // 4 and 8 were rights that nothing asked for (CONFIG, BYPASS); snapshots of earlier builds may hold them.
    /// Join the cluster as a slave.
    pub const CLUSTER: Rights = Rights(16);
    /// No right at all.
    pub const NONE: Rights = Rights(0);

    /// Whether all of `other` is granted.
    pub fn contains(self, other: Rights) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both together.
    pub const fn with(self, other: Rights) -> Rights {
        Rights(self.0 | other.0)
    }
}

/// The lists of names a request collects, as the log's columns have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListKind {
    /// time_profiles
    TimeProfiles,
    /// user_groups
    UserGroups,
    /// request_profiles
    RequestTypes,
    /// categories
    Categories,
    /// profiles
    Profiles,
}

/// What a request was found to be: a set of names per list, as bits, so that deciding allocates nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tags {
    pub(super) time_profiles: Bits,
    pub(super) user_groups: Bits,
    pub(super) request_types: Bits,
    pub(super) categories: Bits,
    pub(super) profiles: Bits,
}

impl Tags {
    /// The set of one list.
    pub(super) fn of(&self, kind: ListKind) -> &Bits {
        match kind {
            ListKind::TimeProfiles => &self.time_profiles,
            ListKind::UserGroups => &self.user_groups,
            ListKind::RequestTypes => &self.request_types,
            ListKind::Categories => &self.categories,
            ListKind::Profiles => &self.profiles,
        }
    }
}

/// 64-bit words of a [`Bits`].
pub(super) const BITS_WORDS: usize = crate::limits::POLICY_NAMES_PER_LIST_MAX / 64;

/// A set of small numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Bits(pub [u64; BITS_WORDS]);

impl Bits {
    /// Adds `index`; out of range is ignored (compile and open refuse such lists).
    pub fn insert(&mut self, index: usize) {
        if let Some(word) = self.0.get_mut(index / 64) {
            *word |= 1 << (index % 64);
        }
    }

    /// Takes `index` away.
    pub fn take(&mut self, index: usize) {
        if let Some(word) = self.0.get_mut(index / 64) {
            *word &= !(1 << (index % 64));
        }
    }

    /// Whether `index` is in the set.
    pub fn contains(&self, index: usize) -> bool {
        self.0.get(index / 64).is_some_and(|word| word & 1 << (index % 64) != 0)
    }

    /// Whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// Whether the sets share an element.
    pub fn meets(&self, other: &Bits) -> bool {
        self.0.iter().zip(&other.0).any(|(a, b)| a & b != 0)
    }

    /// Adds all of `other`.
    pub fn add(&mut self, other: &Bits) {
        self.0.iter_mut().zip(&other.0).for_each(|(a, b)| *a |= b);
    }

    /// Takes all of `other` away.
    pub fn remove(&mut self, other: &Bits) {
        self.0.iter_mut().zip(&other.0).for_each(|(a, b)| *a &= !b);
    }

    /// Takes all away that is not in `other`.
    pub fn keep(&mut self, other: &Bits) {
        self.0.iter_mut().zip(&other.0).for_each(|(a, b)| *a &= b);
    }

    /// What is in either set.
    pub fn with(mut self, other: &Bits) -> Bits {
        self.add(other);
        self
    }

    /// What is not in `other`.
    pub fn without(mut self, other: &Bits) -> Bits {
        self.remove(other);
        self
    }

    /// What is in both sets.
    pub fn common(mut self, other: &Bits) -> Bits {
        self.keep(other);
        self
    }

    /// The elements, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().enumerate().flat_map(|(at, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                let bit = rest.trailing_zeros() as usize;
                rest &= rest.wrapping_sub(1);
                (bit < 64).then_some(at * 64 + bit)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in_and_nothing_else() {
        let mut bits = Bits::default();
        for index in [0, 1, 63, 64, 200, 255, 256, 100_000] {
            bits.insert(index);
        }
        assert_eq!(bits.iter().collect::<Vec<_>>(), [0, 1, 63, 64, 200, 255]);
        let mut other = Bits::default();
        other.insert(64);
        assert!(bits.meets(&other) && bits.contains(64) && !bits.contains(65) && !bits.contains(256));
        assert_eq!(bits.common(&other), other);
        assert_eq!(bits.without(&other).with(&other), bits);
        let mut fewer = bits;
        fewer.take(64);
        fewer.take(100_000);
        assert_eq!(fewer, bits.without(&other));
        bits.remove(&other);
        assert!(!bits.meets(&other));
        assert_eq!(bits.iter().collect::<Vec<_>>(), [0, 1, 63, 200, 255]);
    }
}
