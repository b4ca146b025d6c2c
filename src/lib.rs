//! Tidegate, floor by floor. A module imports only from floors below its own (`tests/tidy.rs` holds that).
//!
//! | floor | module | what it is |
//! |---|---|---|
//! | 7 | [`daemon`] | assembly: the only module that knows everyone; `run` and `demo` |
//! | 6 | [`portal`], [`cli`] | faces: they speak [`admin::Action`] and nothing else |
//! | 5 | [`report`], [`admin`] | questions over the record store; all that may be asked of a node |
//! | 4 | [`proxy`], [`cluster`], [`store`] | the life of a request; master and slaves; the master's durable state |
//! | 3 | [`tls`], [`log`] | identities and handshakes; record spool, extended.log, cursor |
//! | 2 | [`policy`] | what the administrator writes, its compiled snapshot, and the walk that decides |
//! | 1' | [`sys`], [`io`] | system calls behind safe verbs; the only module that names tokio-uring |
//! | 1 | [`wire`], [`record`], [`figures`], [`settings`] | sans-IO: HTTP/1.1, what happened in an exchange, what a node counts, startup params |
//! | 0 | [`limits`], [`base`] | every bound of the product; clock, ids, checksums, verified archives |
//!
//! Deliberately absent: a global registry (things are handed down from [`daemon`]), a plugin interface, a second way out
//! to the network (only [`policy`] mints a permit and only the proxy's upstream takes one), and locks on the data path.

pub mod admin;
pub mod base;
pub mod cli;
pub mod cluster;
pub mod daemon;
pub mod figures;
pub mod io;
pub mod limits;
pub mod log;
pub mod policy;
pub mod portal;
pub mod proxy;
pub mod record;
pub mod report;
pub mod settings;
pub mod store;
pub mod sys;
pub mod tls;
pub mod wire;
