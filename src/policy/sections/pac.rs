//! Proxy auto-configuration: which way browsers take that ask a node for `/proxy.pac` or `/wpad.dat`.

use crate::limits::PAC_BYTES_MAX;
use crate::limits::PAC_PROXIES_MAX;
use crate::policy::compile::builder;
use crate::policy::compile::builder::Builder;
use crate::policy::compile::reader::Complaints;
use crate::policy::compile::reader::Table;
use crate::policy::sections::parents;
use crate::policy::sections::request_types;
use crate::policy::snapshot::body::AddressRange;
use crate::policy::snapshot::body::Pac;
use std::net::IpAddr;

/// Reads `[pac]`.
pub fn compile(root: &mut Table, builder: &mut Builder, out: &mut Complaints) {
    let Some(mut table) = root.table("pac", out) else {
        return;
    };
    let spot = table.spot_of("proxies");
    let said = table.texts("proxies", 300, out);
    if said.as_ref().is_some_and(|said| said.len() > PAC_PROXIES_MAX) {
        let remedy =
            "name the balancers in the order in which they are tried; leave `proxies` out to have the slaves named";
        out.add(&spot, format!("at most {PAC_PROXIES_MAX} proxies are accepted"), remedy);
    }
    let proxies =
        said.unwrap_or_default().iter().filter_map(|said| parents::host_and_port(said, out)).collect::<Vec<_>>();
    let mut direct_networks = Vec::new();
    for said in table.texts("direct_networks", 128, out).unwrap_or_default() {
        direct_networks.extend(builder::addresses(&said, out));
    }
    let mut direct_hosts = request_types::hosts(&mut table, "direct_hosts", out);
    direct_hosts.retain(|host| match host.parse::<IpAddr>() {
        Ok(address) => {
            let (first, v4) = builder::number(address);
            direct_networks.push(AddressRange { first, last: first, v4 });
            false
        }
        Err(_) => true,
    });
    // What the lists take in the script, with quotes and digits; the rest of it is a few kilobytes.
    let bytes = direct_hosts.iter().map(|host| host.len() + 12).sum::<usize>() + direct_networks.len() * 80;
    if bytes + 16 * 1024 > PAC_BYTES_MAX {
        let what =
            format!("the hosts and networks make a script of {bytes} bytes; browsers get {PAC_BYTES_MAX} at most");
        out.add(&table.spot.clone(), what, "name domains instead of hosts, and networks instead of addresses");
    }
    builder.body.pac = Some(Pac {
        proxies: proxies.iter().map(|(host, port)| written(host, *port)).collect(),
        direct_hosts,
        direct_networks,
        direct_plain_names: table.boolean("direct_plain_names", out).unwrap_or(true),
        direct_if_down: table.boolean("direct_if_down", out).unwrap_or(false),
    });
    table.finish(out);
}

/// As browsers read it: an IPv6 address stands in brackets.
fn written(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}
