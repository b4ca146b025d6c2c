//! Who belongs to the cluster: a name is its first node's until an administrator says otherwise.

use crate::base::clock::Wall;
use crate::cluster::Refusal;
use crate::cluster::master::MasterService;
use crate::store::DatabaseError;
use crate::store::members::Standing;
use serde::Deserialize;
use serde::Serialize;
use std::fmt;
use std::sync::Arc;

/// A change of who belongs to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MembershipChange {
    /// The node is no part of the cluster any more: its session ends, its key is barred, its name is free.
    Remove,
    /// The name goes to the next node that comes with it: the machine was installed anew, or another takes its place.
    Release,
    /// A removed node may come back.
    Readmit,
}

impl fmt::Display for MembershipChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MembershipChange::Remove => "remove",
            MembershipChange::Release => "release",
            MembershipChange::Readmit => "readmit",
        })
    }
}

impl MasterService {
    /// Why a node of this name and key may not come in, as far as names and keys go. Its name becomes its own, durably, if
    /// nobody has it yet.
    pub(super) async fn stranger(self: &Arc<Self>, name: &str, fingerprint: &str) -> Result<Option<Refusal>, String> {
        let (members, name, fingerprint) = (self.config.members.clone(), name.to_string(), fingerprint.to_string());
        let met = tokio::task::spawn_blocking(move || {
            let standing = members.meet(&name, &fingerprint, Wall::now())?;
            Ok::<_, DatabaseError>(match standing {
                Standing::Member => None,
                Standing::Barred(removed) => Some(Refusal::Removed { name: removed }),
                Standing::Full => Some(Refusal::NoRoom),
                Standing::Taken(other) => {
                    let since = jiff::Timestamp::from_second(other.first_seen.seconds()).unwrap_or_default();
                    Some(Refusal::NameBound { name, since: since.to_string() })
                }
            })
        });
        met.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }

    /// The names of all nodes of the cluster, also of those that are away. Blocks.
    pub fn member_names(&self) -> Result<Vec<String>, DatabaseError> {
        self.config.members.names()
    }

    /// Does what an administrator orders; answers what that means, or why it cannot be done. Blocks.
    pub fn change_membership(&self, change: MembershipChange, name: &str) -> Result<Option<String>, DatabaseError> {
        let members = &self.config.members;
        let done = match change {
            MembershipChange::Remove => members.remove(name, Wall::now())?,
            MembershipChange::Release => members.release(name)?,
            MembershipChange::Readmit => members.readmit(name)?,
        };
        if !done {
            return Ok(None);
        }
        if change != MembershipChange::Readmit {
            self.roster().forget(name);
            self.tasks().map_or(Ok(()), |tasks| tasks.forget_node(name))?;
        }
        Ok(Some(match change {
            MembershipChange::Remove => format!(
                "{name} is removed: it gets no policy and brings no records any more, and its key is barred. Until it is stopped it \
                 serves clients by its last policy. Who holds the activation key can still join as a new node: to rule that out, \
                 change the key (`tidegate activation-key rotate`)"
            ),
            MembershipChange::Release => {
                format!("the name {name} is free: the next node that comes with it has it from then on")
            }
            MembershipChange::Readmit => format!("the node that was removed as {name} may come back"),
        }))
    }
}
