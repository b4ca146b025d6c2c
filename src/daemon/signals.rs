//! The signals that end a node or a demo in good order.

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
