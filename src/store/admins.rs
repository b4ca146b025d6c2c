//! Administrators of the portal: names and argon2id hashes of their passwords, in `admins.db` in STATE_DIR.

use crate::limits;
use crate::store::database;
use crate::store::database::DatabaseError;
use crate::tls::random;
use argon2::Argon2;
use argon2::PasswordHash;
use argon2::PasswordHasher;
use argon2::PasswordVerifier;
use argon2::password_hash::SaltString;
use rusqlite::Connection;
use rusqlite::OptionalExtension;
use std::fmt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

/// How every hash of a password begins.
pub const HASH_BEGINS: &str = "$argon2";

/// The administrators of a node. Setting and verifying take tens of milliseconds of CPU on purpose: call them where blocking is
/// allowed, and few at a time.
pub struct Admins {
    path: PathBuf,
    connection: Mutex<Connection>,
    /// The hash of a password nobody has: an unknown name is verified against it, so that it takes as long as a known one.
    nobody: String,
}

/// What [`Admins::set`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    /// There is a new administrator.
    Added,
    /// An existing one has a new password.
    Replaced,
}

/// Why an administrator was not set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminError {
    /// The name or the password is not acceptable.
    Unacceptable(String),
    /// The disk or the database failed; nothing changed.
    Failed(String),
}

impl fmt::Display for AdminError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AdminError::Unacceptable(words) | AdminError::Failed(words) => f.write_str(words),
        }
    }
}

impl std::error::Error for AdminError {}

impl From<DatabaseError> for AdminError {
    fn from(error: DatabaseError) -> Self {
        AdminError::Failed(error.0)
    }
}

const FORMAT: i64 = 1;
const SCHEMA: &str = "CREATE TABLE admins (
    name   TEXT PRIMARY KEY,
    hash   TEXT NOT NULL,
    set_us INTEGER NOT NULL
) STRICT;";

impl Admins {
    /// Opens `admins.db` in the state directory, creating it if it is missing.
    pub fn open(state_dir: &Path) -> Result<Admins, DatabaseError> {
        let path = state_dir.join("admins.db");
        let connection = Mutex::new(database::open(&path, FORMAT, SCHEMA)?);
        let nobody = hash(&random::bytes::<32>()).map_err(|error| DatabaseError(error.to_string()))?;
        Ok(Admins { path, connection, nobody })
    }

    /// Adds an administrator, or gives an existing one a new password.
    pub fn set(&self, name: &str, password: &str, now_us: i64) -> Result<Set, AdminError> {
        check_name(name)?;
        check_password(name, password)?;
        let hash = hash(password.as_bytes())?;
        let doing = |error| database::failed(&self.path, "writing", &error);
        let connection = self.connection();
        let replaced = connection
            .execute("UPDATE admins SET hash = ?2, set_us = ?3 WHERE name = ?1", (name, &hash, now_us))
            .map_err(doing)?;
        if replaced == 1 {
            return Ok(Set::Replaced);
        }
        connection
            .execute("INSERT INTO admins (name, hash, set_us) VALUES (?1, ?2, ?3)", (name, &hash, now_us))
            .map_err(doing)?;
        Ok(Set::Added)
    }

    /// Whether this is the password of that administrator. An unknown name takes as long as a wrong password.
    pub fn verify(&self, name: &str, password: &str) -> Result<bool, DatabaseError> {
        // Longer than any password we accepted: wrong, and not worth hashing a megabyte for.
        if password.len() > limits::PASSWORD_BYTES_MAX || name.len() > limits::ADMIN_NAME_BYTES_MAX {
            return Ok(false);
        }
        let known = self.hash_of(name)?;
        let right = matches(known.as_ref().unwrap_or(&self.nobody), password);
        Ok(right && known.is_some())
    }

    /// How many administrators there are: with none, nobody can log in and the portal says how to add one.
    pub fn count(&self) -> Result<u64, DatabaseError> {
        self.connection()
            .query_row("SELECT count(*) FROM admins", [], |row| row.get::<_, i64>(0))
            .map(|count| count as u64)
            .map_err(|error| database::failed(&self.path, "reading", &error))
    }

    fn hash_of(&self, name: &str) -> Result<Option<String>, DatabaseError> {
        self.connection()
            .query_row("SELECT hash FROM admins WHERE name = ?1", [name], |row| row.get(0))
            .optional()
            .map_err(|error| database::failed(&self.path, "reading", &error))
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // A panic while it was held left no half statement behind: SQLite's own transactions saw to that.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check_name(name: &str) -> Result<(), AdminError> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '@');
    if name.is_empty() || name.len() > limits::ADMIN_NAME_BYTES_MAX || !name.chars().all(good) {
        return Err(AdminError::Unacceptable(format!(
            "the administrator's name {:?} is not acceptable: use 1 to {} letters, digits, dots, hyphens, underscores or @",
            name.chars().take(limits::ADMIN_NAME_BYTES_MAX).collect::<String>(),
            limits::ADMIN_NAME_BYTES_MAX
        )));
    }
    Ok(())
}

fn check_password(name: &str, password: &str) -> Result<(), AdminError> {
    let refuse = |words: String| Err(AdminError::Unacceptable(words));
    let letters = password.chars().count();
    if letters < limits::PASSWORD_CHARS_MIN {
        return refuse(format!(
            "the password has {letters} characters: use at least {}, for example four or five random words",
            limits::PASSWORD_CHARS_MIN
        ));
    }
    if password.len() > limits::PASSWORD_BYTES_MAX {
        return refuse(format!("the password is longer than {} bytes: use a shorter one", limits::PASSWORD_BYTES_MAX));
    }
    if password.eq_ignore_ascii_case(name) {
        return refuse("the password is the administrator's name: use another one".to_string());
    }
    if password.chars().all(|c| password.starts_with(c)) {
        return refuse("the password is one character repeated: use another one".to_string());
    }
    Ok(())
}

fn hash(password: &[u8]) -> Result<String, AdminError> {
    let failed =
        |error: argon2::password_hash::Error| AdminError::Failed(format!("hashing the password failed: {error}"));
    let salt = SaltString::encode_b64(&random::bytes::<16>()).map_err(failed)?;
    Ok(Argon2::default().hash_password(password, &salt).map_err(failed)?.to_string())
}

/// Any damage to a stored hash makes the password wrong, never right.
fn matches(hash: &str, password: &str) -> bool {
    PasswordHash::new(hash).is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn admins() -> (tempfile::TempDir, Admins) {
        let dir = tempfile::tempdir().unwrap();
        let admins = Admins::open(dir.path()).unwrap();
        (dir, admins)
    }

    #[test]
    fn an_administrator_is_added_verified_and_given_a_new_password() {
        let (dir, admins) = admins();
        assert_eq!(admins.count().unwrap(), 0);
        assert_eq!(admins.set("ann", "correct horse battery", 1).unwrap(), Set::Added);
        assert!(admins.verify("ann", "correct horse battery").unwrap());
        assert!(!admins.verify("ann", "correct horse batterz").unwrap());
        assert!(!admins.verify("Ann", "correct horse battery").unwrap());
        assert!(!admins.verify("bob", "correct horse battery").unwrap());
        assert_eq!(admins.set("ann", "another long password", 2).unwrap(), Set::Replaced);
        drop(admins);
        let admins = Admins::open(dir.path()).unwrap();
        assert!(!admins.verify("ann", "correct horse battery").unwrap());
        assert!(admins.verify("ann", "another long password").unwrap());
        assert_eq!(admins.count().unwrap(), 1);
    }

    #[test]
    fn weak_passwords_and_odd_names_are_refused_in_words() {
        let (_dir, admins) = admins();
        let long = "x y".repeat(limits::PASSWORD_BYTES_MAX);
        let name = "n".repeat(limits::ADMIN_NAME_BYTES_MAX + 1);
        let cases: &[(&str, &str, &str)] = &[
            ("ann", "short", "at least 12"),
            ("ann", "eleven char", "at least 12"),
            ("ann", &long, "shorter"),
            ("administrator", "Administrator", "name"),
            ("ann", "aaaaaaaaaaaaaaaa", "repeated"),
            ("", "correct horse battery", "1 to"),
            ("a b", "correct horse battery", "1 to"),
            ("a\u{1b}[2J", "correct horse battery", "1 to"),
            (&name, "correct horse battery", "1 to"),
        ];
        for (name, password, words) in cases {
            let error = admins.set(name, password, 1).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        assert_eq!(admins.count().unwrap(), 0);
    }

    #[test]
    fn an_unknown_name_costs_what_a_wrong_password_costs() {
        let (_dir, admins) = admins();
        admins.set("ann", "correct horse battery", 1).unwrap();
        // The same work, not the same time: a clock would measure the machine.
        let cost = |hash: &str| hash.rsplitn(3, '$').last().map(str::to_string);
        let known = admins.hash_of("ann").unwrap().unwrap();
        assert!(known.starts_with("$argon2id$") && known.contains("m="));
        assert_eq!(cost(&admins.nobody), cost(&known), "algorithm, version, memory, passes and lanes");
        for name in ["ann", "bob"] {
            assert!(!admins.verify(name, "wrong wrong wrong").unwrap());
        }
    }

    #[test]
    fn the_file_holds_no_password_and_only_its_owner_reads_it() {
        let (dir, admins) = admins();
        admins.set("ann", "correct horse battery", 1).unwrap();
        for file in ["admins.db", "admins.db-wal"] {
            let path = dir.path().join(file);
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{file}");
            let bytes = std::fs::read(&path).unwrap();
            assert!(!bytes.windows(5).any(|window| window == b"horse"), "{file}");
        }
        assert!(admins.hash_of("ann").unwrap().unwrap().starts_with("$argon2id$"));
    }
}
