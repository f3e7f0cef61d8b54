//! The control socket: who may connect, and the lines of requests and replies. `control/commands.rs` has the commands.

mod capture;
mod commands;
mod connections;
mod counters;
mod top;
mod trace;

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::stat::{Mode, umask};
use nix::unistd::{User, chown};
use serde::{Deserialize, Serialize};
use tidegate_control::{MAX_LINE, Reply, Request};
use tidegate_tcp::config::InvalidSetting;
use tracing::warn;

pub(crate) use self::connections::parse_state;
use crate::failure::Failure;
use crate::main_loop::Caller;
use crate::privileges;

/// The time a client may be silent, and may take to read.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(300);

/// The pause after the kernel refused to accept a client.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The table `[control]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// The socket; without it there is none.
    pub(crate) path: Option<PathBuf>,
    /// The user that may connect beside root; without it the process's own.
    pub(crate) owner: Option<String>,
    /// Clients at a time (1 to 1,024), each of which has a thread.
    pub(crate) max_clients: usize,
    /// Captures and traces at a time (0 to 64); 0: none.
    pub(crate) max_captures: usize,
    /// Bytes of the ring between each shard and each capture or trace (65,536 to 1 GiB).
    pub(crate) capture_ring: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            path: None,
            owner: None,
            max_clients: 16,
            max_captures: 4,
            capture_ring: 4 << 20,
        }
    }
}

impl Config {
    /// Checks the ranges the fields' documentation states.
    ///
    /// # Errors
    ///
    /// The first key whose value is out of range.
    pub(crate) fn validate(&self) -> Result<(), InvalidSetting> {
        InvalidSetting::check_range("max_clients", self.max_clients, 1..=1024)?;
        InvalidSetting::check_range("max_captures", self.max_captures, 0..=64)?;
        // The longest frame, of 9,022 bytes, has to fit with room to spare.
        InvalidSetting::check_range("capture_ring", self.capture_ring, 1 << 16..=1 << 30)
    }

    /// Makes the socket, if there is to be one. It is not at its path before [`ControlSocket::publish`].
    ///
    /// # Errors
    ///
    /// The owner is nobody's name, or the system refuses the socket.
    pub(crate) fn open(&self, caller: &Caller) -> Result<Option<ControlSocket>, Failure> {
        let Some(path) = &self.path else { return Ok(None) };
        let owner = self.owner.as_deref().map(owner).transpose()?;
        let (socket, listener) = ControlSocket::bind(path, owner.as_ref()).map_err(|source| refused(path, source))?;
        let (caller, max_clients) = (caller.clone(), self.max_clients);
        thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || accept(&listener, &caller, max_clients))
            .map_err(|source| refused(path, source))?;
        Ok(Some(socket))
    }
}

/// The user of this name.
fn owner(name: &str) -> Result<User, Failure> {
    match User::from_name(name) {
        Ok(Some(user)) => Ok(user),
        _ => Err(Failure::Usage(format!(
            "the control socket's owner {name} is not a user here; give the name of one (key `control.owner`)"
        ))),
    }
}

/// The socket in the file system, removed when dropped.
pub(crate) struct ControlSocket {
    /// Its place at last.
    path: PathBuf,
    /// Its place now.
    at: PathBuf,
    /// Device and inode, to remove nobody else's.
    file: (u64, u64),
    /// Another server listened at `path` when this one was made. Later it may take privileges to find out.
    is_taken: bool,
}

impl ControlSocket {
    /// Binds a socket for `owner` alone beside `path`.
    fn bind(path: &Path, owner: Option<&User>) -> io::Result<(Self, UnixListener)> {
        let mut at = path.to_owned().into_os_string();
        at.push(format!(".{}", process::id()));
        let at = PathBuf::from(at);
        // Left by a start of the same number that was killed.
        let _ = fs::remove_file(&at);
        // Nobody else may connect between this and what follows, either.
        let before = umask(Mode::from_bits_truncate(0o177));
        let bound = UnixListener::bind(&at);
        umask(before);
        let listener = bound?;
        let socket = Self {
            path: path.to_owned(),
            file: file_of(&at)?,
            at,
            // One that nobody listens on was left by a server that was killed.
            is_taken: UnixStream::connect(path).is_ok(),
        };
        fs::set_permissions(&socket.at, fs::Permissions::from_mode(0o600))?;
        if let Some(owner) = owner {
            chown(&socket.at, Some(owner.uid), Some(owner.gid))?;
        }
        Ok((socket, listener))
    }

    /// Puts the socket at its path; where it `replaces` a server that lives, in its place.
    ///
    /// # Errors
    ///
    /// Another server has the path, or something that is no socket, or the system refuses.
    pub(crate) fn publish(&mut self, replaces: bool) -> Result<(), Failure> {
        let path = &self.path;
        if fs::symlink_metadata(path).is_ok_and(|file| !file.file_type().is_socket()) {
            return Err(refused(path, io::ErrorKind::AlreadyExists.into()));
        }
        if self.is_taken && !replaces {
            return Err(Failure::Usage(format!(
                "another server listens on the control socket {}; stop it, or give another path",
                path.display()
            )));
        }
        fs::rename(&self.at, path).map_err(|source| refused(path, source))?;
        self.at.clone_from(path);
        Ok(())
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        if file_of(&self.at).is_ok_and(|file| file == self.file) {
            // Nobody minds one that is left: it is replaced at the next start.
            let _ = fs::remove_file(&self.at);
        }
    }
}

/// Device and inode of what stands at `path`.
fn file_of(path: &Path) -> io::Result<(u64, u64)> {
    let file = fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino()))
}

fn refused(path: &Path, source: io::Error) -> Failure {
    Failure::System {
        what: format!("cannot open the control socket {}", path.display()),
        source,
    }
}

/// Serves clients for as long as the process lives.
fn accept(listener: &UnixListener, caller: &Caller, max_clients: usize) {
    privileges::confine_helper();
    let clients = Arc::new(AtomicUsize::new(0));
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!("the control socket takes no client: {error}");
                thread::sleep(ACCEPT_PAUSE);
                continue;
            }
        };
        // Only this thread adds.
        if clients.load(Ordering::Relaxed) >= max_clients {
            let reply = Reply::Error(format!(
                "{max_clients} clients are connected; try again when one has left, or set control.max_clients higher"
            ));
            let _ = Client {
                stream: &stream,
                caller,
            }
            .reply(&reply);
            continue;
        }
        let place = Place::of(&clients);
        let caller = caller.clone();
        let spawned = thread::Builder::new().name("control-client".to_owned()).spawn(move || {
            let _place = place;
            // A client that leaves is no news.
            let _ = serve(&stream, &caller);
        });
        if let Err(error) = spawned {
            warn!("the control socket cannot serve a client: {error}");
        }
    }
}

/// One of [`Config::max_clients`], given back when dropped.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn of(clients: &Arc<AtomicUsize>) -> Self {
        clients.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(clients))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A client, for commands.
struct Client<'a> {
    /// Read from by [`serve`] alone.
    stream: &'a UnixStream,
    caller: &'a Caller,
}

impl Client<'_> {
    fn reply(&self, reply: &Reply) -> io::Result<()> {
        let mut line = serde_json::to_vec(reply)?;
        line.push(b'\n');
        let mut stream = self.stream;
        stream.write_all(&line)
    }

    /// Replies with what was found, or with why not.
    fn answer<T: Serialize>(&self, answer: Result<T, String>) -> io::Result<()> {
        self.reply(&match answer {
            Ok(value) => Reply::Ok(serde_json::to_value(value)?),
            Err(sentence) => Reply::Error(sentence),
        })
    }
}

fn serve(stream: &UnixStream, caller: &Caller) -> io::Result<()> {
    stream.set_read_timeout(Some(CLIENT_TIMEOUT))?;
    stream.set_write_timeout(Some(CLIENT_TIMEOUT))?;
    let client = Client { stream, caller };
    let mut lines = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        if lines.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if line.last() != Some(&b'\n') {
            return client.reply(&Reply::Error(format!(
                "a request is a line of at most {MAX_LINE} octets"
            )));
        }
        match serde_json::from_slice::<Request>(&line) {
            Ok(request) => commands::run(&client, request)?,
            Err(error) => client.reply(&Reply::Error(format!("not a request: {error}")))?,
        }
    }
}

#[cfg(test)]
mod tests;
