//! nginx: where it is, and its configuration.

use std::env;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

/// Where Debian has it; not every user's `PATH` names that.
const USUAL: &str = "/usr/sbin/nginx";

/// The line that is printed before it begins. It does not say itself when it serves.
pub(crate) const READY: &str = "ready";

/// Connections of the one worker, a few of which it needs for itself. Far more than the clients open.
const CONNECTIONS: u32 = 16_384;

/// Connections that may wait to be accepted. The kernel's `net.core.somaxconn` is the limit.
const BACKLOG: u32 = 65_535;

/// Finds the program.
///
/// # Errors
///
/// It is not installed.
pub(crate) fn find() -> anyhow::Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let candidates = env::split_paths(&path).map(|directory| directory.join("nginx"));
    first_file(candidates.chain([PathBuf::from(USUAL)]))
        .context("nginx is not installed; `apt-get install nginx-light` installs it")
}

/// Has `shell`, a command that starts one, say [`READY`] and become nginx with `configuration`, which is written to
/// `work`.
///
/// # Errors
///
/// The configuration cannot be written.
pub(crate) fn add_to(shell: &mut Command, program: &Path, work: &Path, configuration: &str) -> anyhow::Result<()> {
    let file = work.join("nginx.conf");
    std::fs::write(&file, configuration).with_context(|| format!("cannot write {}", file.display()))?;
    shell.args(["-c", &format!("echo {READY}; exec \"$0\" \"$@\"")]);
    shell.arg(program).arg("-p").arg(work).arg("-c").arg(file);
    Ok(())
}

fn first_file(mut candidates: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    candidates.find(|candidate| candidate.is_file())
}

/// The configuration: one worker on `cpu` that serves the files in `root` on `address`, set up for what is measured.
/// nginx writes to `work`.
///
/// `sendfile` and `tcp_nopush` are on as in Debian's own configuration; with them, a small response is one segment.
pub(crate) fn configuration(address: SocketAddr, root: &Path, work: &Path, cpu: usize) -> String {
    let root = root.display();
    let work = work.display();
    // A mask in binary digits, the first CPU in the last one.
    let mask = format!("1{}", "0".repeat(cpu));
    // The worker reads files that only the user who measures may read.
    format!(
        r#"daemon off;
user root;
worker_processes 1;
worker_cpu_affinity {mask};
pid "{work}/nginx.pid";
error_log stderr warn;
events {{
    worker_connections {CONNECTIONS};
    multi_accept on;
    accept_mutex off;
}}
http {{
    access_log off;
    types {{
        text/html html;
    }}
    sendfile on;
    tcp_nopush on;
    tcp_nodelay on;
    keepalive_timeout 75s;
    keepalive_requests 1000000000;
    open_file_cache max=16 inactive=1h;
    open_file_cache_valid 1h;
    open_file_cache_min_uses 1;
    client_body_temp_path "{work}/nginx-body";
    server {{
        listen {address} reuseport backlog={BACKLOG};
        root "{root}";
    }}
}}
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_says_where_what_and_on_which_core() {
        let address = "[2001:2::1]:80".parse().unwrap();
        let text = configuration(address, Path::new("/srv/files"), Path::new("/tmp/work"), 2);
        for line in [
            "daemon off;",
            "worker_processes 1;",
            "worker_cpu_affinity 100;",
            "access_log off;",
            "sendfile on;",
            "open_file_cache max=16 inactive=1h;",
            "keepalive_requests 1000000000;",
            "listen [2001:2::1]:80 reuseport backlog=65535;",
            "root \"/srv/files\";",
            "pid \"/tmp/work/nginx.pid\";",
        ] {
            assert!(text.lines().any(|found| found.trim() == line), "{line}\n{text}");
        }
        assert_eq!(text.matches('{').count(), text.matches('}').count());
    }

    #[test]
    fn the_first_core_is_the_last_digit() {
        let address = "198.18.0.1:80".parse().unwrap();
        let text = configuration(address, Path::new("/a"), Path::new("/b"), 0);
        assert!(text.contains("worker_cpu_affinity 1;\n"), "{text}");
    }

    #[test]
    fn only_a_file_is_a_program() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("missing");
        let file = directory.path().join("nginx");
        std::fs::write(&file, "").unwrap();
        let candidates = [missing.clone(), directory.path().to_owned(), file.clone()];
        assert_eq!(first_file(candidates.into_iter()), Some(file));
        assert_eq!(first_file([missing].into_iter()), None);
    }
}
