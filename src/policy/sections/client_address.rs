//! Client address: which word of a trusted proxy in front of the node is believed, and what origins learn.
//!
//! By default a secure web gateway believes nobody and tells nobody. Whom it could believe is a startup param
//! (TRUSTED_PROXIES); which field it believes stands here, because a proxy that writes one of them passes the other on as
//! its client sent it.

use crate::policy::compile::builder::Builder;
use crate::policy::compile::reader::Complaints;
use crate::policy::compile::reader::Table;
use crate::policy::snapshot::body::ArchivedClientAddress;

/// Which field of a trusted proxy names the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Believed {
    /// None: the client is who connects.
    Nothing,
    /// X-Forwarded-For.
    XForwardedFor,
    /// Forwarded (RFC 7239).
    Forwarded,
}

/// What origins learn about the client's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Nothing: both fields are dropped.
    Nothing,
    /// Both fields as they came.
    AsReceived,
    /// X-Forwarded-For with the client appended.
    XForwardedFor,
    /// Forwarded with the client appended.
    Forwarded,
}

const BELIEVED: &[(&str, Believed)] =
    &[("nothing", Believed::Nothing), ("x-forwarded-for", Believed::XForwardedFor), ("forwarded", Believed::Forwarded)];
const TOLD: &[(&str, Told)] = &[
    ("nothing", Told::Nothing),
    ("as-received", Told::AsReceived),
    ("x-forwarded-for", Told::XForwardedFor),
    ("forwarded", Told::Forwarded),
];

/// Reads `[client_address]`.
pub fn compile(root: &mut Table, builder: &mut Builder, out: &mut Complaints) {
    let Some(mut table) = root.table("client_address", out) else {
        return;
    };
    let words = |list: &[&str]| format!("write one of \"{}\"", list.join("\", \""));
    let mut choose = |key: &'static str, names: Vec<&'static str>| {
        let Some(said) = table.text(key, 32, out) else { return 0 };
        let found = names.iter().position(|name| *name == said.value);
        if found.is_none() {
            out.add(&said.spot, format!("unknown value `{}`", said.value), words(&names));
        }
        found.unwrap_or(0) as u8
    };
    builder.body.client_address.believed = choose("believe", BELIEVED.iter().map(|(name, _)| *name).collect());
    builder.body.client_address.told = choose("tell_origins", TOLD.iter().map(|(name, _)| *name).collect());
    table.finish(out);
}

impl ArchivedClientAddress {
    /// Which field names the client.
    #[inline]
    pub fn believed(&self) -> Believed {
        BELIEVED.get(self.believed as usize).map_or(Believed::Nothing, |(_, believed)| *believed)
    }

    /// What origins learn.
    #[inline]
    pub fn told(&self) -> Told {
        TOLD.get(self.told as usize).map_or(Told::Nothing, |(_, told)| *told)
    }

    /// Both are what compile writes.
    pub fn check(&self) -> bool {
        (self.believed as usize) < BELIEVED.len() && (self.told as usize) < TOLD.len()
    }
}
