//! What a node tells a parent proxy of itself. The policy names a file; each node reads its own, in CREDENTIALS_DIR, so no
//! secret stands in the document or travels in a snapshot. Format: docs/formats/parent-credentials.md.

use crate::limits::CREDENTIALS_BYTES_MAX;
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::rc::Rc;

/// A name and a password.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) user: String,
    pub(super) password: String,
}

impl Login {
    /// The value of Proxy-Authorization (RFC 7617).
    pub(super) fn basic(&self) -> String {
        let pair = format!("{}:{}", self.user, self.password);
        format!("Basic {}", data_encoding::BASE64.encode(pair.as_bytes()))
    }
}

/// What the files of credentials say, or why one cannot be used.
pub(super) type Logins = HashMap<String, Result<Rc<Login>, Rc<str>>>;

/// What was read on another thread.
pub(super) struct Found(HashMap<String, Result<Login, String>>);

impl Found {
    /// Reads the files `names` in `dir`. Blocks.
    pub(super) fn read(dir: &Path, names: Vec<String>) -> Found {
        Found(names.into_iter().map(|name| (name.clone(), read(dir.join(name)))).collect())
    }

    /// For the core. What cannot be used is told once, not at each look.
    pub(super) fn into_logins(self, before: &Logins) -> Logins {
        let told = |(name, said): (String, Result<Login, String>)| {
            let said = said.map(Rc::new).map_err(Rc::from);
            if let Err(words) = &said
                && before.get(&name) != Some(&said)
            {
                tracing::warn!(event = "credentials-missing", "{words}");
            }
            (name, said)
        };
        self.0.into_iter().map(told).collect()
    }
}

fn read(path: PathBuf) -> Result<Login, String> {
    let at = path.display();
    let unreadable = |error: std::io::Error| {
        format!(
            "credentials for a parent proxy: {at}: {error}; write user:password into it, mode 0600, on this node too"
        )
    };
    let file = File::open(&path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.mode();
    if mode & 0o077 != 0 {
        let mode = mode & 0o7777;
        return Err(format!(
            "credentials for a parent proxy: {at} has mode {mode:04o}: others could read it; chmod 0600 it"
        ));
    }
    let mut text = String::new();
    file.take(CREDENTIALS_BYTES_MAX as u64 + 1).read_to_string(&mut text).map_err(unreadable)?;
    parse(&text).map_err(|words| format!("credentials for a parent proxy: {at}: {words}; write one line user:password"))
}

/// One line, `user:password`; the password may have colons.
fn parse(text: &str) -> Result<Login, &'static str> {
    let line = text.strip_suffix('\n').unwrap_or(text);
    if text.len() > CREDENTIALS_BYTES_MAX {
        return Err("it is too long");
    }
    if line.chars().any(char::is_control) {
        return Err("it has more than one line, or a control character");
    }
    let (user, password) = line.split_once(':').ok_or("it has no colon")?;
    if user.is_empty() || user.len() > 255 || password.len() > 255 {
        return Err("name and password may have 255 bytes each, and the name at least one");
    }
    Ok(Login { user: user.to_string(), password: password.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_line_is_a_login_and_everything_else_is_refused() {
        let login = |user: &str, password: &str| Some((user.to_string(), password.to_string()));
        let long = "x".repeat(256);
        let table = [
            ("ann:secret\n", login("ann", "secret")),
            ("ann:se:cr et", login("ann", "se:cr et")),
            ("ann:\n", login("ann", "")),
            ("", None),
            ("ann\n", None),
            (":secret", None),
            ("ann:a\nbob:b\n", None),
            ("ann:a\r\n", None),
            (&format!("{long}:x"), None),
            (&format!("x:{long}"), None),
        ];
        for (text, expected) in table {
            assert_eq!(parse(text).ok().map(|login| (login.user, login.password)), expected, "{text:?}");
        }
        assert_eq!(parse("Aladdin:open sesame").ok().unwrap().basic(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hq");
        fs::write(&path, "ann:secret\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(read(path.clone()).err().unwrap().contains("chmod 0600"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(read(path).is_ok());
        let words = read(dir.path().join("none")).err().unwrap();
        assert!(words.contains("none") && words.contains("mode 0600"), "{words}");
    }
}
