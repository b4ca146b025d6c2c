//! A data core in the test's own process: real sockets, a real policy, a real log, and nothing of a node around it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tidegate::log::Log;
use tidegate::log::LogConfig;
use tidegate::policy;
use tidegate::policy::NoFiles;
use tidegate::policy::Snapshot;
use tidegate::proxy::Core;
use tidegate::proxy::CoreConfig;
use tidegate::proxy::CoreHandle;
use tidegate::record::Epoch;
use tidegate::record::Record;
use tidegate::sys::sockets;

/// A running core with its log.
pub struct LoneCore {
    handle: CoreHandle,
    log: Log,
    pub address: SocketAddr,
    dir: TempDir,
}

pub fn snapshot(document: &str, version: u64) -> Arc<Snapshot> {
    let bytes = policy::compile(document, version, &NoFiles).unwrap_or_else(|complaints| panic!("{complaints:?}"));
    Arc::new(Snapshot::open(&bytes).unwrap())
}

impl LoneCore {
    /// A core of the node `name` under the policy `document`; `tune` changes how it is made.
    pub fn start(name: &str, document: &str, tune: impl FnOnce(&mut CoreConfig)) -> LoneCore {
        let dir = tempfile::tempdir().unwrap();
        let (state_dir, log_dir) = (dir.path().join("state"), dir.path().join("log"));
        std::fs::create_dir_all(&state_dir).unwrap();
        std::fs::create_dir_all(&log_dir).unwrap();
        let config = LogConfig {
            state_dir,
            log_dir,
            node: name.to_string(),
            epoch: Epoch([7; 16]),
            cores: 1,
            file_bytes_max: 1 << 30,
            sync_ms: 200,
            count_when_full: false,
            keep_days: 1,
        };
        let (log, mut desks) = Log::start(config).unwrap();
        let listeners = sockets::listen_group(Some("127.0.0.1".parse().unwrap()), 0, 1024, 1).unwrap();
        let address = listeners[0].local_addr().unwrap();
        let mut config = CoreConfig::new(0, listeners, name, desks.remove(0), snapshot(document, 1));
        tune(&mut config);
        LoneCore { handle: Core::start(config).unwrap(), log, address, dir }
    }

    pub fn handle(&self) -> &CoreHandle {
        &self.handle
    }

    /// Drains the core for at most `within`, ends the log and reads what it says.
    pub fn records(self, within: Duration) -> Vec<Record> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(self.handle.drain(within)).unwrap();
        self.handle.join();
        self.log.stop();
        let text = std::fs::read(self.dir.path().join("log/extended.log")).unwrap();
        let lines = text.split(|byte| *byte == b'\n').skip(1).filter(|line| !line.is_empty());
        lines.map(|line| tidegate::record::line::parse(line).unwrap_or_else(|error| panic!("{error:?}"))).collect()
    }
}
