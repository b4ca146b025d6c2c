//! startup.ini on disk: read with all faults at once, rewritten whole or not at all.

use crate::base::durable;
use crate::limits;
use crate::settings::Fault;
use crate::settings::Said;
use crate::settings::Settings;
use crate::settings::key;
use crate::settings::parse;
use crate::settings::render;
use crate::settings::resolve;
use crate::settings::said::check_characters;
use crate::settings::said::known_instead;
use crate::settings::said::quote;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

/// A file that was read without fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// What the file says.
    pub said: Said,
    /// What that means on this host.
    pub settings: Settings,
}

/// Reads the startup params of `path`, or says everything that is wrong with them.
pub fn load(path: &Path) -> Result<Loaded, Vec<Fault>> {
    let bytes = read_bounded(path).map_err(|error| vec![unreadable(path, &error)])?;
    let (said, mut faults) = parse(&bytes);
    // Also when lines were bad: who fixes the file wants to hear of the bad values in the same breath.
    let settings = match resolve(&said, &host_name()) {
        Ok(settings) => Some(settings),
        Err(more) => {
            add_unless_unread(&mut faults, more, &said);
            None
        }
    };
    match settings {
        Some(settings) if faults.is_empty() => Ok(Loaded { said, settings }),
        _ => Err(in_order(path, faults)),
    }
}

/// The RUN_DIR that a file names, whatever else is wrong with it: enough to find the node and ask.
pub fn run_dir(path: &Path) -> Option<PathBuf> {
    let (said, _) = parse(&read_bounded(path).ok()?);
    Some(PathBuf::from(said.value(key("RUN_DIR")?)))
}

/// Writes changed values to `path`, keeping all others, its mode and its owner. Everything is checked first; on any fault
/// the file stays as it was.
pub fn submit(path: &Path, changes: &BTreeMap<String, String>) -> Result<Loaded, Vec<Fault>> {
    // Through a link to the file itself: replacing the link by a file would surprise whoever made it.
    let path = &fs::canonicalize(path).map_err(|error| vec![unreadable(path, &error)])?;
    let bytes = read_bounded(path).map_err(|error| vec![unreadable(path, &error)])?;
    let (mut said, mut faults) = parse(&bytes);
    faults.retain(|fault| fault.key.is_empty() || !changes.contains_key(&fault.key));
    for (name, value) in changes {
        match key(name) {
            None => faults.push(Fault::new(0, name, quote(value), known_instead(name))),
            Some(key) => match check_characters(value.trim()) {
                Ok(()) => said.say(key, value.trim()),
                Err(accepts) => faults.push(Fault::new(0, name, quote(value), accepts)),
            },
        }
    }
    let settings = match resolve(&said, &host_name()) {
        Ok(settings) if faults.is_empty() => settings,
        Ok(_) => return Err(in_order(path, faults)),
        Err(more) => {
            add_unless_unread(&mut faults, more, &said);
            return Err(in_order(path, faults));
        }
    };
    let copy = settings.state_dir.join("startup.ini.submitted");
    rewrite(path, &render(&said), &copy).map_err(|error| vec![unwritable(path, &error)])?;
    Ok(Loaded { said, settings })
}

/// The host's name, as the kernel knows it.
pub fn host_name() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_string()).unwrap_or_default()
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One more than allowed is enough for the parser to see that it is too much.
    fs::File::open(path)?.take(limits::STARTUP_INI_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn rewrite(path: &Path, text: &str, copy: &Path) -> io::Result<()> {
    let old = fs::metadata(path)?;
    match durable::replace(path, text.as_bytes(), old.mode() & 0o777) {
        // As the package lays it out: the file is the node's, its folder (with the activation key in it) is root's.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return durable::overwrite(path, text.as_bytes(), copy);
        }
        written => written?,
    }
    // Only root can give a file away; for anybody else the new file is their own, as it must be.
    let _ = std::os::unix::fs::chown(path, Some(old.uid()), Some(old.gid()));
    Ok(())
}

/// A key whose line could not be read stands at its default: what that default leads to is not the reader's mistake.
fn add_unless_unread(faults: &mut Vec<Fault>, more: Vec<Fault>, said: &Said) {
    let unread = |fault: &Fault| key(&fault.key).is_some_and(|key| !said.says(key));
    let told: Vec<String> = faults.iter().filter(|fault| unread(fault)).map(|fault| fault.key.clone()).collect();
    faults.extend(more.into_iter().filter(|fault| !told.contains(&fault.key)));
}

fn in_order(path: &Path, mut faults: Vec<Fault>) -> Vec<Fault> {
    for fault in &mut faults {
        fault.file = path.display().to_string();
    }
    faults.sort_by_key(|fault| fault.line);
    faults
}

fn unreadable(path: &Path, error: &io::Error) -> Fault {
    let accepts =
        "a readable file of startup params; the package installs one, and `tidegate params default` prints one";
    Fault { file: path.display().to_string(), ..Fault::new(0, "", format!("nothing ({error})"), accepts) }
}

fn unwritable(path: &Path, error: &io::Error) -> Fault {
    let accepts = "a file that the daemon's user may write, with room on its disk";
    Fault { file: path.display().to_string(), ..Fault::new(0, "", format!("an error when writing ({error})"), accepts) }
}
