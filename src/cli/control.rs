//! The control socket, both ends: one JSON line asks, one JSON line answers. Format: `docs/formats/control-socket.md`.

use crate::admin::Action;
use crate::admin::Actor;
use crate::admin::Desk;
use crate::admin::Outcome;
use crate::admin::Refused;
use crate::admin::RefusedKind;
use crate::limits;
use crate::sys::peer;
use crate::sys::peer::Peer;
use serde::Deserialize;
use serde::Serialize;
use std::fmt;
use std::fs;
use std::io;
use std::io::BufRead;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncBufReadExt;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::BufReader;
use tokio::net::UnixListener;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio::time::timeout;

/// One line of answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    /// It was done.
    Ok(Outcome),
    /// It was not.
    Refused(Refused),
}

// --- the node's end -------------------------------------------------------------------------------------------------

/// Binds the control socket at `path` (mode 0660, owned by `group` if there is one). What a dead node left there is replaced;
/// a node that answers keeps it. Needs a tokio runtime around it.
pub fn bind(path: &Path, group: Option<u32>) -> io::Result<UnixListener> {
    let said = |words: String| io::Error::other(format!("the control socket {}: {words}", path.display()));
    make_way(path).map_err(|error| said(error.to_string()))?;
    let listener = UnixListener::bind(path).map_err(|error| {
        said(format!("{error}. RUN_DIR must exist, be the daemon's own, and its path be shorter than 90 characters."))
    })?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(|error| said(error.to_string()))?;
    if group.is_some() {
        // A daemon that is not itself in the group cannot give the socket to it; members are then kept out by the mode, and
        // root and the daemon's user still get in.
        let _ = std::os::unix::fs::chown(path, None, group);
    }
    Ok(listener)
}

/// Answers on `listener` until the future is dropped. Root, the daemon's own user and members of `group` are let in; everybody
/// else is told who would be.
pub async fn serve(listener: UnixListener, desk: Arc<dyn Desk>, group: Option<u32>) {
    let room = Arc::new(Semaphore::new(limits::CONTROL_CONNECTIONS_MAX));
    // Dropping the set ends all conversations with this future.
    let mut conversations = JoinSet::new();
    loop {
        while conversations.try_join_next().is_some() {}
        // The semaphore is never closed, so this only waits.
        let Ok(place) = room.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let desk = desk.clone();
                conversations.spawn(async move {
                    let _place = place;
                    converse(stream, desk, group).await;
                });
            }
            // Out of descriptors, most likely: accepting again at once would spin.
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

/// One connection: requests are answered one after the other until the other side ends.
async fn converse(stream: UnixStream, desk: Arc<dyn Desk>, group: Option<u32>) {
    let actor = peer::peer(&stream).map_err(|error| error.to_string()).and_then(|peer| admit(peer, group));
    let (reading, mut writing) = stream.into_split();
    let mut reading = BufReader::new(reading);
    loop {
        let limit = if actor.is_ok() { limits::CONTROL_REQUEST_BYTES_MAX } else { limits::CONTROL_STRANGER_BYTES_MAX };
        let (answer, more) = match (read_request(&mut reading, limit).await, &actor) {
            (Request::End, _) => return,
            (_, Err(words)) => (refusal(RefusedKind::NotAllowed, words.clone()), false),
            (Request::Line(line), Ok(actor)) => (perform(&*desk, actor.clone(), &line).await, true),
            (Request::Bad(words), _) => (refusal(RefusedKind::Invalid, words), false),
        };
        if send(&mut writing, &answer).await.is_err() {
            return;
        }
        if !more {
            // What the other side still sends is taken and dropped: closing on unread bytes could cost it the answer.
            let _ = writing.shutdown().await;
            let rest = async { while reading.read(&mut [0; 8 * 1024]).await.is_ok_and(|bytes| bytes > 0) {} };
            let _ = timeout(Duration::from_secs(limits::CONTROL_IDLE_S_MAX), rest).await;
            return;
        }
    }
}

enum Request {
    Line(Vec<u8>),
    Bad(String),
    End,
}

async fn read_request(reading: &mut (impl AsyncBufReadExt + Unpin), limit: usize) -> Request {
    let mut line = Vec::new();
    let mut bounded = reading.take(limit as u64 + 1);
    let deadline = Duration::from_secs(limits::CONTROL_IDLE_S_MAX);
    match timeout(deadline, bounded.read_until(b'\n', &mut line)).await {
        Ok(Ok(0)) | Ok(Err(_)) => Request::End,
        Ok(Ok(_)) if line.len() > limit => {
            Request::Bad(format!("the request is longer than {limit} bytes; send less at once"))
        }
        Ok(Ok(_)) => Request::Line(line),
        // Silence after an answer, or before any word, needs no answer; half a line does.
        Err(_) if line.is_empty() => Request::End,
        Err(_) => Request::Bad(format!(
            "no whole request came within {} s; end the JSON line with a newline",
            limits::CONTROL_IDLE_S_MAX
        )),
    }
}

async fn perform(desk: &dyn Desk, actor: Actor, line: &[u8]) -> Answer {
    let action: Action = match serde_json::from_slice(line) {
        Ok(action) => action,
        Err(error) => {
            return refusal(
                RefusedKind::Invalid,
                format!(
                    "the request is not an action this version knows ({error}); send one JSON object a line, such as {{\"action\":\"status\"}}"
                ),
            );
        }
    };
    let deadline = Duration::from_secs(limits::CONTROL_ACTION_S_MAX);
    match timeout(deadline, desk.perform(actor, action)).await {
        Ok(Ok(outcome)) => Answer::Ok(outcome),
        Ok(Err(refused)) => Answer::Refused(refused),
        Err(_) => refusal(
            RefusedKind::Failed,
            format!(
                "the node did not finish within {} s; look at its journal (journalctl -u tidegate) and at `tidegate status`",
                limits::CONTROL_ACTION_S_MAX
            ),
        ),
    }
}

async fn send(writing: &mut (impl AsyncWriteExt + Unpin), answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer).map_err(io::Error::other)?;
    line.push(b'\n');
    timeout(Duration::from_secs(limits::CONTROL_IDLE_S_MAX), writing.write_all(&line)).await?
}

fn refusal(kind: RefusedKind, words: String) -> Answer {
    Answer::Refused(Refused { kind, words, complaints: Vec::new() })
}

/// Who the peer is, or why it may not ask.
fn admit(peer: Peer, group: Option<u32>) -> Result<Actor, String> {
    let user = peer::user_name(peer.uid).unwrap_or_else(|| format!("uid {}", peer.uid));
    if peer.uid == 0 || peer.uid == peer::own_uid() || group.is_some_and(|group| peer::in_group(peer, group)) {
        return Ok(Actor::Local { uid: peer.uid, user });
    }
    let group = group.map(|group| peer::group_name(group).unwrap_or_else(|| format!("number {group}")));
    let members =
        group.map_or(String::new(), |group| format!(", or join the group {group} (CONTROL_GROUP) and log in again"));
    Err(format!("{user} may not use this node's control socket: use sudo{members}"))
}

/// Makes the path free for binding, unless somebody lives there.
fn make_way(path: &Path) -> io::Result<()> {
    let Ok(found) = fs::symlink_metadata(path) else { return Ok(()) };
    if !found.file_type().is_socket() {
        return Err(io::Error::other(
            "there is a file of another kind at this path; move it away or set another RUN_DIR",
        ));
    }
    match BlockingStream::connect(path) {
        Ok(_) => Err(io::Error::other(
            "another node answers on it; stop that one (systemctl stop tidegate) or give this one a RUN_DIR of its own",
        )),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
    }
}

// --- the asking end -------------------------------------------------------------------------------------------------

/// Why a node could not be asked. Each says what to do.
#[derive(Debug)]
pub struct ControlError {
    path: PathBuf,
    trouble: Trouble,
}

#[derive(Debug)]
enum Trouble {
    NotThere,
    NobodyListens,
    NotPermitted,
    TooLong,
    NoAnswer,
    Silent,
    Nonsense(String),
    Other(io::Error),
}

impl ControlError {
    /// Whether there is simply no node behind the socket.
    pub fn is_no_node(&self) -> bool {
        matches!(self.trouble, Trouble::NotThere | Trouble::NobodyListens)
    }
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.trouble {
            Trouble::NotThere => write!(
                f,
                "there is no control socket at {path}. Is the node running? See `systemctl status tidegate`; if it runs with another \
                 RUN_DIR, name its socket with --control."
            ),
            Trouble::NobodyListens => write!(
                f,
                "nobody answers on {path}: the node is not running (any more). See `systemctl status tidegate` and \
                 `journalctl -u tidegate`."
            ),
            Trouble::NotPermitted => write!(
                f,
                "you may not connect to {path}. Use sudo, or join the group that CONTROL_GROUP in startup.ini names and log in again."
            ),
            Trouble::TooLong => write!(
                f,
                "the request is longer than the {} bytes that {path} takes; send less at once.",
                limits::CONTROL_REQUEST_BYTES_MAX
            ),
            Trouble::NoAnswer => {
                write!(
                    f,
                    "the node behind {path} closed the connection without an answer. See `journalctl -u tidegate`."
                )
            }
            Trouble::Silent => write!(
                f,
                "the node behind {path} took longer than {} s. See `journalctl -u tidegate`; what was asked may still be done.",
                ANSWER_S_MAX
            ),
            Trouble::Nonsense(what) => write!(
                f,
                "{path} answered something this version does not understand ({what}). Use the tidegate command of the version the \
                 node runs."
            ),
            Trouble::Other(error) => write!(f, "asking {path} failed: {error}."),
        }
    }
}

impl std::error::Error for ControlError {}

/// A little longer than the node gives itself, so that its own words arrive.
const ANSWER_S_MAX: u64 = limits::CONTROL_ACTION_S_MAX + limits::CONTROL_IDLE_S_MAX;

/// Asks the node behind the socket at `path` and waits for its answer.
pub fn ask(path: &Path, action: &Action) -> Result<Result<Outcome, Refused>, ControlError> {
    exchange(path, action).map_err(|trouble| ControlError { path: path.to_path_buf(), trouble })
}

fn exchange(path: &Path, action: &Action) -> Result<Result<Outcome, Refused>, Trouble> {
    let mut line = serde_json::to_vec(action).map_err(|error| Trouble::Other(error.into()))?;
    line.push(b'\n');
    if line.len() > limits::CONTROL_REQUEST_BYTES_MAX {
        return Err(Trouble::TooLong);
    }
    let mut stream = BlockingStream::connect(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Trouble::NotThere,
        io::ErrorKind::ConnectionRefused => Trouble::NobodyListens,
        io::ErrorKind::PermissionDenied => Trouble::NotPermitted,
        _ => Trouble::Other(error),
    })?;
    let deadline = Some(Duration::from_secs(ANSWER_S_MAX));
    stream.set_write_timeout(deadline).and_then(|()| stream.set_read_timeout(deadline)).map_err(Trouble::Other)?;
    // A node that refuses early may stop reading: its answer is there all the same, so a failed write is no end yet.
    let written = stream.write_all(&line);
    let mut answer = Vec::new();
    let mut bounded = io::BufReader::new(stream).take(limits::CONTROL_ANSWER_BYTES_MAX as u64);
    bounded.read_until(b'\n', &mut answer).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Trouble::Silent,
        io::ErrorKind::ConnectionReset => Trouble::NoAnswer,
        _ => Trouble::Other(error),
    })?;
    if answer.is_empty() {
        return Err(written
            .err()
            .filter(|error| error.kind() != io::ErrorKind::BrokenPipe)
            .map_or(Trouble::NoAnswer, Trouble::Other));
    }
    match serde_json::from_slice(&answer) {
        Ok(Answer::Ok(outcome)) => Ok(Ok(outcome)),
        Ok(Answer::Refused(refused)) => Ok(Err(refused)),
        Err(error) => Err(Trouble::Nonsense(error.to_string())),
    }
}
