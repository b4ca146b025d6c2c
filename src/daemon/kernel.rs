//! The host as this node needs it: looked at when the node starts, and whenever somebody asks.

use super::desk::NodeDesk;
use crate::admin::KernelCheck;
use crate::admin::Verdict;
use crate::settings::Settings;
use crate::sys::kernel::Host;
use crate::sys::kernel_checks;
use crate::sys::kernel_checks::Needs;

/// Looks at the host for the node behind `desk`.
pub fn look(desk: &NodeDesk) -> Vec<KernelCheck> {
    let ports = desk.facts.listen.iter().map(|address| address.port()).chain([desk.facts.portal.port()]).collect();
    let settings = desk.params.watch();
    let needs = Needs { ports, ..needs(&settings.borrow()) };
    kernel_checks::walk(&Host::this(), &needs)
}

/// Looks at the host before the node binds and starts, so that the journal says why if it cannot.
pub fn tell(settings: &Settings) {
    let checks = kernel_checks::walk(&Host::this(), &needs(settings));
    for KernelCheck { name, verdict, found, why, remedy } in &checks {
        match verdict {
            Verdict::Hurts => {
                tracing::warn!(event = "host-hurts", check = %name, "{name}: {found}. {why} To mend it: {remedy}");
            }
            Verdict::Advice => {
                tracing::info!(event = "host-advice", check = %name, "{name}: {found}. {why} Advice: {remedy}");
            }
            Verdict::Good | Verdict::Unknown => {
                tracing::debug!(event = "host-checked", check = %name, "{name}: {found}");
            }
        }
    }
}

fn needs(settings: &Settings) -> Needs {
    Needs {
        open_files: settings.max_fds,
        connections: settings.max_connections,
        ports: vec![settings.listen_port, settings.portal_port],
    }
}
