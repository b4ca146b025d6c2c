//! The signals that a node or a demo hears.

use std::io;
use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

/// SIGINT and SIGTERM as one wait.
pub struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

/// Starts listening; to be called inside a tokio runtime.
pub fn stop() -> io::Result<Stop> {
    Ok(Stop { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
}

impl Stop {
    /// Returns when one of the signals came.
    pub async fn recv(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// What a node hears.
pub struct Orders {
    stop: Stop,
    reload: Signal,
    aside: Signal,
}

/// What a signal asks of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// SIGTERM, SIGINT: finish what is under way, then end.
    Stop,
    /// SIGHUP: read startup.ini again.
    Reload,
    /// SIGUSR1: a successor takes over; finish what is under way beside it.
    StandAside,
}

/// Starts listening; to be called inside a tokio runtime.
pub fn orders() -> io::Result<Orders> {
    Ok(Orders { stop: stop()?, reload: signal(SignalKind::hangup())?, aside: signal(SignalKind::user_defined1())? })
}

impl Orders {
    /// The next one.
    pub async fn next(&mut self) -> Order {
        tokio::select! {
            () = self.stop.recv() => Order::Stop,
            _ = self.reload.recv() => Order::Reload,
            _ = self.aside.recv() => Order::StandAside,
        }
    }
}
