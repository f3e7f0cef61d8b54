//! The secret that the keys of SYN cookies are derived from. It appears in no log, no message and no listing.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::unistd::geteuid;
use tidegate_abi::siphash::Key;
use tidegate_tcp::config::InvalidSetting;

use crate::config::SynCookies;
use crate::error::Error;
use crate::random;

/// Hexadecimal digits of 128 bits.
const DIGITS: usize = 32;

/// More than a key and the white space around it takes.
const MAX_FILE: u64 = 4096;

/// Permissions that let others than the owner read or write.
const OPEN_TO_OTHERS: u32 = 0o066;

const ROOT: u32 = 0;

/// Where the keys of SYN cookies come from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Secret {
    pub(crate) key: Key,
    /// Other hosts may have it, too, and answer SYNs whose acknowledgments arrive here.
    pub(crate) shared: bool,
}

impl Secret {
    /// Becomes that of the process before, unless there is a file that says otherwise.
    pub(crate) fn take_over(&mut self, key: Key) {
        if !self.shared {
            self.key = key;
        }
    }

    /// The secret of the key file, or a random one without a file.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] when the file cannot be read, holds no key, or is open to others than its owner.
    pub(crate) fn load(settings: &SynCookies) -> Result<Self, Error> {
        match &settings.key_file {
            Some(path) => Ok(Self {
                key: read(path)
                    .map_err(|message| InvalidSetting::new(["key_file"], message))
                    .map_err(Error::in_table("syn_cookies"))?,
                shared: true,
            }),
            None => Ok(Self {
                key: Key::from_bytes(random::bytes()?),
                shared: false,
            }),
        }
    }
}

fn read(path: &Path) -> Result<Key, String> {
    let shown = path.display();
    let cannot_read = |error: io::Error| format!("cannot read the cookie key file {shown}: {error}");
    // What is checked is what is read, and a FIFO does not block.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(cannot_read)?;
    let metadata = file.metadata().map_err(cannot_read)?;
    if !metadata.is_file() {
        return Err(format!("the cookie key file {shown} is not a regular file"));
    }
    check_access(path, metadata.uid(), metadata.mode(), geteuid().as_raw())?;
    let mut text = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut text).map_err(cannot_read)?;
    let key = parse(&text).ok_or_else(|| {
        format!(
            "the cookie key file {shown} does not hold {DIGITS} hexadecimal digits; make one with \
             `(umask 077; openssl rand -hex 16 > {shown})` or `(umask 077; head -c16 /dev/urandom | xxd -p > {shown})`"
        )
    })?;
    if key == Key(0, 0) {
        return Err(format!(
            "the key in the cookie key file {shown} is all zero; make a random one with \
             `(umask 077; openssl rand -hex 16 > {shown})`"
        ));
    }
    Ok(key)
}

fn check_access(path: &Path, owner: u32, mode: u32, user: u32) -> Result<(), String> {
    let shown = path.display();
    if owner != ROOT && owner != user {
        return Err(format!(
            "the cookie key file {shown} belongs to user {owner}; it must belong to root or to the user that runs \
             tidegate: `chown {user} {shown}`"
        ));
    }
    if mode & OPEN_TO_OTHERS != 0 {
        return Err(format!(
            "the cookie key file {shown} is open to others than its owner (mode {:03o}); close it with \
             `chmod 600 {shown}`, and make a new key if others may have read it",
            mode & 0o777
        ));
    }
    Ok(())
}

/// The key in `text`: 32 hexadecimal digits, with white space around them.
fn parse(text: &[u8]) -> Option<Key> {
    let digits = text.trim_ascii();
    if digits.len() != DIGITS {
        return None;
    }
    let mut bytes = [0; DIGITS / 2];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(Key::from_bytes(bytes))
}

fn digit(character: u8) -> Option<u8> {
    char::from(character).to_digit(16).map(|digit| digit as u8)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    use tempfile::TempDir;

    use super::*;

    const HEX: &str = "000102030405060708090a0B0C0D0E0F";

    fn file(content: &str, mode: u32) -> (TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("cookie.key");
        fs::write(&path, content).expect("a file");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("its permissions");
        (directory, path)
    }

    fn complaint(content: &str, mode: u32) -> String {
        let (_directory, path) = file(content, mode);
        read(&path).expect_err("a file that is refused")
    }

    #[test]
    fn a_key_is_read_with_white_space_around_it() {
        let (_directory, path) = file(&format!("\n {HEX}\r\n"), 0o600);
        let mut bytes = [0; 16];
        for (value, byte) in bytes.iter_mut().enumerate() {
            *byte = value as u8;
        }
        assert!(read(&path).expect("a good file") == Key::from_bytes(bytes));
        let settings = SynCookies {
            key_file: Some(path),
            ..SynCookies::default()
        };
        assert!(Secret::load(&settings).expect("a good file").shared);
    }

    #[test]
    fn random_secrets_differ() {
        let [first, second] = [(); 2].map(|()| Secret::load(&SynCookies::default()).expect("randomness"));
        assert!(first.key != second.key);
        assert!(!first.shared);
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_repeated() {
        let short = &HEX[1..];
        for content in ["", short, &format!("{HEX}00"), &format!("{short}g"), "0x00"] {
            let error = complaint(content, 0o600);
            assert!(error.contains("32 hexadecimal digits"), "{error}");
            assert!(content.is_empty() || !error.contains(content), "{error}");
        }
        assert!(complaint(&"0".repeat(32), 0o600).contains("all zero"));
    }

    #[test]
    fn a_file_open_to_others_is_refused() {
        for mode in [0o640, 0o620, 0o604, 0o602, 0o666] {
            let error = complaint(HEX, mode);
            assert!(error.contains("chmod 600"), "{mode:o}: {error}");
            assert!(!error.contains(HEX), "{error}");
        }
        let (_directory, path) = file(HEX, 0o400);
        read(&path).expect("a file that only its owner can read");
    }

    #[test]
    fn a_file_of_somebody_else_is_refused() {
        let path = Path::new("cookie.key");
        check_access(path, 0, 0o600, 1000).expect("root's");
        check_access(path, 1000, 0o600, 1000).expect("the user's own");
        let error = check_access(path, 1001, 0o600, 1000).expect_err("another user's");
        assert!(error.contains("chown 1000"), "{error}");
        let error = check_access(path, 1001, 0o600, 0).expect_err("another user's, and not root's");
        assert!(error.contains("user 1001"), "{error}");
    }

    #[test]
    fn what_is_not_there_or_no_file_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        assert!(
            read(directory.path())
                .expect_err("a directory")
                .contains("regular file")
        );
        let missing = directory.path().join("missing");
        let settings = SynCookies {
            key_file: Some(missing.clone()),
            ..SynCookies::default()
        };
        let error = Secret::load(&settings).expect_err("no file");
        assert!(error.is_usage());
        assert!(error.to_string().contains(&missing.display().to_string()), "{error}");
    }
}
