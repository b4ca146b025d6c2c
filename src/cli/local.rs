//! What the command line does by itself: reads documents and passwords, checks a document without a node, makes a key.

use crate::admin::Diagnostics;
use crate::admin::KernelCheck;
use crate::cli::paper::tame;
use crate::limits;
use crate::policy;
use crate::policy::Complaint;
use crate::policy::Folder;
use crate::settings;
use crate::sys::kernel::Host;
use crate::sys::kernel_checks;
use crate::sys::kernel_checks::Needs;
use crate::sys::terminal;
use std::fs;
use std::io;
use std::io::BufRead;
use std::io::IsTerminal;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;

/// The text of a policy document; `-` is standard input.
pub fn document(file: &Path) -> Result<String, String> {
    let name = if file == Path::new("-") { "standard input".to_string() } else { file.display().to_string() };
    let limit = limits::POLICY_DOCUMENT_BYTES_MAX;
    let read = |from: &mut dyn Read| {
        let mut bytes = Vec::new();
        from.take(limit as u64 + 1).read_to_end(&mut bytes).map(|_| bytes)
    };
    let bytes = if file == Path::new("-") {
        read(&mut io::stdin().lock())
    } else {
        fs::File::open(file).and_then(|mut file| read(&mut file))
    };
    let bytes = bytes.map_err(|error| format!("reading {name} failed: {error}"))?;
    if bytes.len() > limit {
        return Err(format!(
            "{name} is longer than {limit} bytes; put long host lists into files that the document names"
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        let line =
            error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|&&byte| byte == b'\n').count() + 1;
        format!("{name}, line {line}: this is not UTF-8 text; save the document as UTF-8")
    })
}

/// Compiles a document here; list files are looked for beside it.
pub fn check(file: &Path, document: &str) -> Vec<Complaint> {
    policy::compile(document, 1, &Folder::of_document(file)).err().unwrap_or_default()
}

/// Looks at the host as the node of this host's startup.ini, or one with nothing said, would need it.
pub fn kernel() -> Vec<KernelCheck> {
    let needs = settings::load(Path::new(settings::DEFAULT_FILE)).map_or_else(
        |_| Needs { open_files: 65_536, ..Needs::default() },
        |loaded| Needs {
            open_files: loaded.settings.max_fds,
            connections: loaded.settings.max_connections,
            ports: vec![loaded.settings.listen_port, loaded.settings.portal_port],
        },
    );
    kernel_checks::walk(&Host::this(), &needs)
}

/// Writes diagnostics to a new file that only its owner can read; answers which.
pub fn keep_diagnostics(diagnostics: &Diagnostics, output: Option<PathBuf>) -> Result<PathBuf, String> {
    keep_archive(&diagnostics.file_name, &diagnostics.archive, output)
}

/// Writes a file that a node answered with in base64, for its owner alone; answers where.
pub fn keep_archive(file_name: &str, content: &str, output: Option<PathBuf>) -> Result<PathBuf, String> {
    // Of what the node called it only the name is taken, never a folder.
    let name = Path::new(file_name).file_name().unwrap_or("tidegate-output".as_ref());
    let path = output.unwrap_or_else(|| PathBuf::from(name));
    let archive = data_encoding::BASE64
        .decode(content.as_bytes())
        .map_err(|error| format!("the node's archive cannot be read ({error}); use the command of its version"))?;
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .and_then(|mut file| file.write_all(&archive));
    match written {
        Ok(()) => Ok(path),
        Err(error) => Err(format!("writing {} failed: {error}; name another file with --output", path.display())),
    }
}

/// A password: asked twice on a terminal, otherwise the first line of standard input.
pub fn password(name: &str) -> Result<String, String> {
    if io::stdin().is_terminal() {
        return typed_password(name).map_err(|error| format!("reading the password from the terminal failed: {error}"));
    }
    let mut line = String::new();
    let limit = limits::PASSWORD_BYTES_MAX as u64 + 3;
    io::BufReader::new(io::stdin().lock().take(limit))
        .read_line(&mut line)
        .map_err(|error| format!("reading the password from standard input failed: {error}"))?;
    let password = line.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(
            "standard input has no password on its first line; write it there, or run the command on a terminal"
                .to_string(),
        );
    }
    Ok(password.to_string())
}

fn typed_password(name: &str) -> io::Result<String> {
    let limit = limits::PASSWORD_BYTES_MAX + 2;
    let prompt = format!("Password for {} (at least {} characters): ", tame(name), limits::PASSWORD_CHARS_MIN);
    let first = terminal::read_secret(&prompt, limit)?;
    let second = terminal::read_secret("The same again: ", limit)?;
    if first != second {
        return Err(io::Error::other("the two are not the same; run the command again"));
    }
    Ok(first)
}
