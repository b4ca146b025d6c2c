//! The keeper: what systemd starts. It starts the node as its child, holds the listening sockets, and lets one node follow another
//! while the older finishes what is under way. It touches no traffic and knows no policy: there is little in it that could
//! need a restart itself.
//!
//! ```text
//! systemd --SIGTERM, SIGUSR1, SIGHUP--> keeper --signals--> node
//!         <--READY, STATUS, FDSTORE ..--        <--the same, and SUCCEED, ASIDE--
//! ```
//!
//! | what happens | what the keeper does |
//! |---|---|
//! | `tidegate restart` (the node says SUCCEED) | lets the node stand aside, starts a successor, goes on |
//! | `systemctl restart` (ExecStop: SIGUSR1, then SIGTERM) | lets the node stand aside, ends: systemd starts the next keeper |
//! | `systemctl stop` (SIGTERM) | stops the node and waits until it has drained |
//! | the node crashes | ends with an error: systemd starts the next keeper |
//! | the keeper is killed | the node stands aside by itself (its parent's death is a SIGTERM to it) |

use crate::limits::ABORT_MS;
use crate::limits::ASIDE_MS_MAX;
use crate::sys::activation;
use crate::sys::activation::Passed;
use crate::sys::process;
use crate::sys::sd_notify;
use crate::sys::sd_notify::Message;
use crate::sys::sd_notify::Notify;
use std::ffi::OsStr;
use std::io;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::ExitCode;
use std::process::ExitStatus;
use std::time::Duration;
use tokio::io::Interest;
use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

/// Keeps a node by the startup.ini at `config`.
pub fn keep(config: &Path) -> ExitCode {
    let notify = Notify::from_environment();
    let listeners = activation::take();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("starting the keeper: {error}")),
    };
    runtime.block_on(async move {
        // First: a signal that comes at once is heard.
        let signals = match Signals::listen() {
            Ok(signals) => signals,
            Err(error) => return failed(&format!("listening for signals: {error}")),
        };
        let keeper = Node::start(config, &listeners).map(|node| Keeper {
            config: config.to_path_buf(),
            notify,
            listeners,
            node,
            aside: Vec::new(),
            leaving: None,
        });
        match keeper {
            Ok(keeper) => match keeper.live(signals).await {
                Ok(code) => code,
                Err(error) => failed(&format!("keeping the node: {error}")),
            },
            Err(error) => failed(&format!("starting the node: {error}")),
        }
    })
}

struct Keeper {
    config: PathBuf,
    /// To systemd.
    notify: Notify,
    /// Those of systemd and those the node bound itself.
    listeners: Vec<Passed>,
    node: Node,
    /// Former nodes that finish what is under way.
    aside: Vec<Child>,
    /// Why the node is to go, once it was told.
    leaving: Option<Leaving>,
}

/// The node's process and the way to it.
struct Node {
    child: Child,
    said: tokio::net::UnixDatagram,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaving {
    /// It ends.
    Stop,
    /// It stands aside for the next keeper's node.
    NextKeeper,
    /// It stands aside for the next node.
    Successor,
}

/// What the keeper hears.
struct Signals {
    stop: super::signals::Stop,
    died: Signal,
    reload: Signal,
    hand_over: Signal,
    abort: Signal,
}

impl Signals {
    fn listen() -> io::Result<Signals> {
        Ok(Signals {
            stop: super::signals::stop()?,
            died: signal(SignalKind::child())?,
            reload: signal(SignalKind::hangup())?,
            hand_over: signal(SignalKind::user_defined1())?,
            abort: signal(SignalKind::from_raw(process::ABORT))?,
        })
    }
}

enum News {
    Said(Message),
    Died,
    Stop,
    HandOver,
    Reload,
    Abort,
    Late,
}

impl Keeper {
    async fn live(mut self, signals: Signals) -> io::Result<ExitCode> {
        let Signals { mut stop, mut died, mut reload, mut hand_over, mut abort } = signals;
        let (mut handing_over, mut told) = (false, None);
        let mut late = Box::pin(tokio::time::sleep(Duration::ZERO));
        loop {
            if self.leaving != told {
                told = self.leaving;
                late = Box::pin(tokio::time::sleep(Duration::from_millis(ASIDE_MS_MAX)));
            }
            // Whether it drains or stands aside: a stop may take as long as the node says, and systemd holds a watch over that.
            let standing_aside = matches!(told, Some(Leaving::NextKeeper | Leaving::Successor));
            let news = tokio::select! {
                // In this order: ExecStop says what the stop behind it means.
                biased;
                _ = hand_over.recv() => News::HandOver,
                message = self.node.hear() => News::Said(message),
                _ = died.recv() => News::Died,
                () = stop.recv() => News::Stop,
                _ = reload.recv() => News::Reload,
                _ = abort.recv() => News::Abort,
                () = &mut late, if standing_aside => News::Late,
            };
            match news {
                News::Said(message) => {
                    if let Some(code) = self.heard(message)? {
                        return Ok(code);
                    }
                }
                News::Died => {
                    self.aside.retain_mut(|child| !matches!(child.try_wait(), Ok(Some(_))));
                    if let Some(status) = self.node.child.try_wait()?
                        && let Some(code) = self.node_ended(status)?
                    {
                        return Ok(code);
                    }
                }
                News::HandOver => handing_over = true,
                News::Stop if handing_over => self.dismiss(Leaving::NextKeeper),
                News::Stop => self.dismiss(Leaving::Stop),
                News::Reload => self.tell(process::HANGUP),
                // systemd's watchdog: somebody in the node hangs.
                News::Abort => {
                    self.tell(process::ABORT);
                    // A stopped process, or one whose threads hang in the kernel, does not hear that.
                    tokio::time::sleep(Duration::from_millis(ABORT_MS)).await;
                    let _ = self.node.child.kill();
                    let _ = self.node.child.wait();
                    return Ok(failed("the node hung and was aborted"));
                }
                News::Late => {
                    eprintln!("tidegate: the node did not stand aside within {ASIDE_MS_MAX} ms: killing it");
                    let _ = self.node.child.kill();
                    late = Box::pin(tokio::time::sleep(Duration::from_millis(ASIDE_MS_MAX)));
                }
            }
        }
    }

    /// Passes on what the node says; answers how to end, if that is next.
    fn heard(&mut self, message: Message) -> io::Result<Option<ExitCode>> {
        match message.text.as_str() {
            sd_notify::SUCCEED if self.leaving.is_none() => self.dismiss(Leaving::Successor),
            sd_notify::SUCCEED => {}
            sd_notify::ASIDE => match self.leaving {
                Some(Leaving::NextKeeper | Leaving::Stop) => return Ok(Some(ExitCode::SUCCESS)),
                // Told or by itself: it serves nobody new any more, so another must.
                Some(Leaving::Successor) | None => self.succeed()?,
            },
            text => {
                if text.starts_with("FDSTOREREMOVE=1") {
                    let name = name_in(text);
                    self.listeners.retain(|kept| kept.name != name);
                }
                let borrowed: Vec<_> = message.descriptors.iter().map(AsFd::as_fd).collect();
                if let Err(error) = self.notify.send(text, &borrowed) {
                    eprintln!("tidegate: telling systemd {text:?}: {error}");
                }
                if text.starts_with("FDSTORE=1") {
                    let name = name_in(text);
                    let kept = message.descriptors.into_iter().map(TcpListener::from);
                    self.listeners.extend(kept.map(|listener| Passed { name: name.to_string(), listener }));
                }
            }
        }
        Ok(None)
    }

    fn dismiss(&mut self, why: Leaving) {
        self.leaving = Some(why);
        self.tell(if why == Leaving::Stop { process::TERMINATE } else { process::STAND_ASIDE });
    }

    fn tell(&self, signal: i32) {
        if let Err(error) = process::signal(self.node.child.id(), signal) {
            eprintln!("tidegate: telling the node (pid {}) by signal {signal}: {error}", self.node.child.id());
        }
    }

    /// Starts a successor beside the node, which has stood aside.
    fn succeed(&mut self) -> io::Result<()> {
        let successor = Node::start(&self.config, &self.listeners)?;
        let former = std::mem::replace(&mut self.node, successor);
        self.aside.push(former.child);
        self.leaving = None;
        Ok(())
    }

    /// How to end now that the node has; nothing if the next one is due.
    fn node_ended(&mut self, status: ExitStatus) -> io::Result<Option<ExitCode>> {
        if self.leaving == Some(Leaving::Successor) {
            // It had nothing to finish, or it crashed on its way out.
            self.succeed()?;
            return Ok(None);
        }
        // A node that was told before it could listen ends by the signal itself.
        let by_order =
            self.leaving.is_some() && [process::TERMINATE, process::STAND_ASIDE].map(Some).contains(&status.signal());
        if status.success() || by_order {
            return Ok(Some(ExitCode::SUCCESS));
        }
        eprintln!("tidegate: the node ended: {status}");
        Ok(Some(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))))
    }
}

impl Node {
    fn start(config: &Path, listeners: &[Passed]) -> io::Result<Node> {
        let (ours, theirs) = UnixDatagram::pair()?;
        ours.set_nonblocking(true)?;
        let mut command = Command::new(process::own_program());
        command.args([OsStr::new("run"), OsStr::new("--config"), config.as_os_str()]);
        let named: Vec<_> = listeners.iter().map(|one| (one.name.as_str(), &one.listener)).collect();
        let number = activation::pass(&mut command, &named, &[theirs.as_fd()]);
        command.env(sd_notify::KEEPER, number.to_string()).env_remove("WATCHDOG_PID");
        let child = process::spawn_bound(&mut command)?;
        Ok(Node { child, said: tokio::net::UnixDatagram::from_std(ours)? })
    }

    async fn hear(&self) -> Message {
        loop {
            match self.said.async_io(Interest::READABLE, || sd_notify::receive(self.said.as_fd())).await {
                Ok(message) if !message.text.is_empty() => return message,
                // Its end is closed: it has ended, which a signal tells.
                Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

fn name_in(text: &str) -> &str {
    text.lines().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or_default()
}

fn failed(words: &str) -> ExitCode {
    eprintln!("tidegate: {words}");
    ExitCode::FAILURE
}
