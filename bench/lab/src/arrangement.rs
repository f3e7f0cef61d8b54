//! The cores and the way of the frames, the same for every target: the generator and the clients on one core, the
//! server and both devices on another.

use std::fmt::Display;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};

use crate::family::Family;
use crate::machine;
use crate::namespaces::{Lab, Place};

/// The client's device, as `scripts/lab.sh` makes it.
pub const CLIENT_DEVICE: &str = "tgc0";

/// The server's device.
pub const SERVER_DEVICE: &str = "tgs0";

/// The time that the kernel threads of a device may take to appear.
const THREAD_TIMEOUT: Duration = Duration::from_secs(2);

/// The interval between two looks for them.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// The cores of the two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cores {
    /// The CPU of the generator, the clients and their device.
    pub client: usize,
    /// The CPU of the server and its device.
    pub server: usize,
    /// The number this process may use.
    pub available: usize,
}

impl Cores {
    /// Returns the first two this process may use, or the only one for both.
    ///
    /// # Errors
    ///
    /// The affinity mask cannot be read.
    pub fn choose() -> anyhow::Result<Self> {
        let allowed = tidegate_affinity::allowed().context("cannot read the CPU affinity mask")?;
        Self::of(&allowed).ok_or_else(|| anyhow!("the CPU affinity mask is empty"))
    }

    fn of(allowed: &[usize]) -> Option<Self> {
        let client = *allowed.first()?;
        let server = allowed.get(1).copied().unwrap_or(client);
        Some(Self {
            client,
            server,
            available: allowed.len(),
        })
    }

    /// Returns a sentence for people.
    pub fn describe(self) -> String {
        let Self { client, server, .. } = self;
        if client == server {
            return format!(
                "everything on CPU {client}, which is the only one: the generator takes it from the server"
            );
        }
        format!(
            "generator (nice 19) and clients on CPU {client}; server (nice -10) and the NAPI thread of its device on CPU \
             {server}, which also takes in what comes back to the clients"
        )
    }
}

/// Prepares the lab: routes and neighbours for the spoofed `sources`, a prefix of IPv4 and one of IPv6, no program on
/// the client's device, and the path of received frames on the server's device that native XDP uses, for the kernel
/// too.
///
/// Nothing is restored; the lab is taken down afterwards.
///
/// # Errors
///
/// A command fails, or the kernel refuses a setting.
pub fn prepare(lab: &Lab, sources: [impl Display; 2]) -> anyhow::Result<()> {
    for place in [Place::Client, Place::Server] {
        // What one connection learned of the path must not be what the next one begins with.
        lab.set_variable(place, "net.ipv4.tcp_no_metrics_save", 1)?;
        for variable in ["conf.all.rp_filter", "conf.default.rp_filter"] {
            lab.set_variable(place, &format!("net.ipv4.{variable}"), 0)?;
        }
    }
    lab.set_variable(Place::Server, &format!("net.ipv4.conf.{SERVER_DEVICE}.rp_filter"), 0)?;
    lab.set_variable(Place::Client, &format!("net.ipv4.conf.{CLIENT_DEVICE}.rp_filter"), 0)?;
    output(
        lab,
        Place::Client,
        &["ip", "link", "set", "dev", CLIENT_DEVICE, "xdp", "off"],
    )?;
    // Without an XDP program, a veth device takes redirected frames only with GRO, and only then it has a NAPI of its
    // own that can be on a core of its own.
    output(lab, Place::Server, &["ethtool", "-K", SERVER_DEVICE, "gro", "on"])?;
    let client_mac = mac_of(lab, Place::Client, CLIENT_DEVICE)?;
    let server_mac = mac_of(lab, Place::Server, SERVER_DEVICE)?;
    for (family, sources) in Family::ALL.into_iter().zip(sources) {
        let sources = sources.to_string();
        let version = if family == Family::V4 { "-4" } else { "-6" };
        let client = family.client().to_string();
        let server = family.server().to_string();
        let route = [
            "ip",
            version,
            "route",
            "replace",
            &sources,
            "via",
            &client,
            "dev",
            SERVER_DEVICE,
        ];
        output(lab, Place::Server, &route)?;
        set_neighbour(lab, Place::Server, SERVER_DEVICE, [version, &client, &client_mac])?;
        set_neighbour(lab, Place::Client, CLIENT_DEVICE, [version, &server, &server_mac])?;
    }
    Ok(())
}

/// Has the server's device polled by kernel threads, and binds these to its core. To be called when a program was
/// attached.
///
/// The clients' device is not: what answers a flood comes faster than a thread that shares its core with the generator
/// gets to run, and a ring that is full takes nothing. So the core that sends the answers also takes them in.
///
/// # Errors
///
/// A command fails, the threads do not appear, or they cannot be bound.
pub fn bind_devices(lab: &Lab, cores: Cores) -> anyhow::Result<()> {
    let switch = format!("echo 1 >/sys/class/net/{SERVER_DEVICE}/threaded");
    output(lab, Place::Server, &["sh", "-c", &switch])?;
    bind_device(SERVER_DEVICE, cores.server)
}

/// Binds the kernel threads that poll `device` to `cpu`, and waits for them if they are not there yet.
fn bind_device(device: &str, cpu: usize) -> anyhow::Result<()> {
    let deadline = Instant::now() + THREAD_TIMEOUT;
    while machine::pin_napi_threads(device, cpu)? == 0 {
        if Instant::now() >= deadline {
            bail!(
                "there is no kernel thread napi/{device}-N after {} s; the kernel must know threaded NAPI (Linux 5.12)",
                THREAD_TIMEOUT.as_secs()
            );
        }
        thread::sleep(POLL_INTERVAL);
    }
    Ok(())
}

/// Returns the driver of the server's device.
///
/// # Errors
///
/// The command fails.
pub fn driver(lab: &Lab) -> anyhow::Result<String> {
    let text = output(lab, Place::Server, &["ethtool", "-i", SERVER_DEVICE])?;
    Ok(parse_driver(&text).unwrap_or("unknown").to_owned())
}

fn parse_driver(text: &str) -> Option<&str> {
    text.lines()
        .find_map(|line| line.strip_prefix("driver:"))
        .map(str::trim)
}

/// A permanent entry: `neighbour` is the option for the IP version, the address and the MAC address.
fn set_neighbour(lab: &Lab, place: Place, device: &str, neighbour: [&str; 3]) -> anyhow::Result<()> {
    let [version, address, mac] = neighbour;
    let command = [
        "ip",
        version,
        "neigh",
        "replace",
        address,
        "lladdr",
        mac,
        "dev",
        device,
        "nud",
        "permanent",
    ];
    output(lab, place, &command).map(drop)
}

fn mac_of(lab: &Lab, place: Place, device: &str) -> anyhow::Result<String> {
    let file = format!("/sys/class/net/{device}/address");
    Ok(output(lab, place, &["cat", &file])?.trim().to_owned())
}

/// Runs a command at `place` and returns what it prints.
fn output(lab: &Lab, place: Place, command: &[&str]) -> anyhow::Result<String> {
    let text = command.join(" ");
    let (program, arguments) = command.split_first().context("an empty command")?;
    let output = lab
        .command(place, program)
        .args(arguments)
        .output()
        .with_context(|| format!("cannot run `{text}`"))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        bail!("`{text}` failed in the lab: {}", why.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_two_cores_are_used_and_one_is_enough() {
        let cores = Cores {
            client: 2,
            server: 5,
            available: 3,
        };
        assert_eq!(Cores::of(&[2, 5, 7]), Some(cores));
        let one = Cores::of(&[3]).unwrap();
        assert_eq!((one.client, one.server, one.available), (3, 3, 1));
        assert!(one.describe().contains("only one"));
        assert_eq!(Cores::of(&[]), None);
    }

    #[test]
    fn the_driver_is_on_a_line_of_its_own() {
        assert_eq!(parse_driver("driver: veth\nversion: 1.0\n"), Some("veth"));
        assert_eq!(parse_driver("version: 1.0\n"), None);
    }

    #[test]
    fn threads_that_do_not_appear_are_an_error_that_names_the_device() {
        let error = bind_device("no-such-device", 0).unwrap_err().to_string();
        assert!(error.contains("napi/no-such-device"), "{error}");
    }
}
