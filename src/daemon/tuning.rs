//! Startup params as the data cores take them, at the start and when they change.

use super::params::Params;
use super::publish::Publisher;
use crate::limits::PEAK_CONNECTIONS_MIN;
use crate::limits::PEAK_LOOK_S;
use crate::proxy::Admissions;
use crate::proxy::Balancers;
use crate::proxy::ProxyProtocol;
use crate::proxy::Timeouts;
use crate::proxy::Tuning;
use crate::settings;
use crate::settings::Settings;
use crate::sys::memory;
use std::sync::Arc;
use std::time::Duration;

/// The cores' part of the settings.
pub fn of(settings: &Settings) -> Tuning {
    let times = &settings.times;
    let timeouts = Timeouts {
        head: times.head * 1000,
        keep_alive: times.idle * 1000,
        body: times.body * 1000,
        connect: times.connect * 1000,
        answer: times.answer * 1000,
        tunnel: times.tunnel * 1000,
        total: times.total * 1000,
        ..Timeouts::default()
    };
    let proxy_protocol = match settings.proxy_protocol {
        settings::ProxyProtocol::Off => ProxyProtocol::Off,
        settings::ProxyProtocol::Optional => ProxyProtocol::Optional,
        settings::ProxyProtocol::Required => ProxyProtocol::Required,
    };
    Tuning { timeouts, balancers: Balancers { proxy_protocol, trusted: settings.trusted_proxies.clone() } }
}

/// The limits of connections.
pub fn admissions(settings: &Settings) -> Admissions {
    Admissions::new(settings.max_connections, settings.max_connections_per_client)
}

/// Hands the cores what changes in startup.ini.
pub fn follow(params: &Params, publisher: Arc<Publisher>, admissions: Arc<Admissions>) {
    let mut settings = params.watch();
    tokio::spawn(async move {
        while settings.changed().await.is_ok() {
            let now = settings.borrow_and_update().clone();
            admissions.set_limits(now.max_connections, now.max_connections_per_client);
            publisher.tune(of(&now)).await;
        }
    });
}

/// Gives the memory of a peak of connections back once most of them are gone.
pub fn give_back_after_peaks(admissions: Arc<Admissions>) {
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(PEAK_LOOK_S)).await;
            let (open, peak) = (admissions.open(), admissions.peak());
            if peak >= PEAK_CONNECTIONS_MIN && open <= peak / 2 {
                admissions.forget_peak();
                let _ = tokio::task::spawn_blocking(memory::give_free_pages_back).await;
            }
        }
    });
}
