//! A host behind a router and a narrow link: Linux tells of packets that are too big, or they vanish.

use std::marker::PhantomData;
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use tidegate_random::Random;

use crate::fixture::counters::{PASSED_NOT_TCP, PATH_MTU_BLACK_HOLES, PATH_MTU_REDUCED, REDIRECTS_TOO_BIG, TOO_BIG_IN};
use crate::fixture::data::{directory, sha256_of_file, write_file};
use crate::fixture::server::Server;
use crate::fixture::{BOTH_FAMILIES, Lab, NAMESPACES, Place, report, run, url};

/// The host's namespace.
fn host_name() -> &'static str {
    static NAME: LazyLock<String> = LazyLock::new(|| format!("{}-host", NAMESPACES.name()));
    &NAME
}

/// The host's device, and the router's towards it.
const HOST_DEVICE: &str = "tgh0";
const ROUTER_DEVICE: &str = "tgr0";
/// The router's device towards the server.
const CLIENT_DEVICE: &str = "tgc0";

const LIMIT: Duration = Duration::from_secs(60);

/// A host in a namespace of its own, for which the lab's client is the router. Dropping it removes it.
struct Host<'lab> {
    _lab: PhantomData<&'lab Lab>,
}

impl<'lab> Host<'lab> {
    /// Makes the link between router and host with an MTU for each end: packets larger than `router_mtu` are refused by
    /// the router, which tells the sender; those larger than `host_mtu` are lost. The host's MSS is that of Ethernet.
    fn behind_client(_lab: &'lab Lab, router_mtu: u16, host_mtu: u16) -> Self {
        remove();
        ip(&["netns", "add", host_name()]);
        let host = Self { _lab: PhantomData };
        let router = &*NAMESPACES.namespace(Place::Client);
        for (namespace, setting) in [
            (host_name(), "net.ipv6.conf.all.accept_dad=0"),
            (host_name(), "net.ipv6.conf.default.accept_dad=0"),
            (router, "net.ipv4.ip_forward=1"),
            (router, "net.ipv6.conf.all.forwarding=1"),
        ] {
            inside(namespace, &["sysctl", "-q", "-w", setting]);
        }
        let link = ["link", "add", ROUTER_DEVICE, "netns", router, "type", "veth"];
        ip(&[&link[..], &["peer", "name", HOST_DEVICE, "netns", host_name()]].concat());
        for (namespace, device, mtu, v4, v6) in [
            (router, ROUTER_DEVICE, router_mtu, "198.18.1.1/24", "2001:2:0:1::1/64"),
            (host_name(), HOST_DEVICE, host_mtu, "198.18.1.2/24", "2001:2:0:1::2/64"),
        ] {
            ip(&["-n", namespace, "link", "set", "dev", device, "mtu", &mtu.to_string()]);
            ip(&["-n", namespace, "address", "add", v4, "dev", device]);
            ip(&["-n", namespace, "address", "add", v6, "dev", device, "nodad"]);
            ip(&["-n", namespace, "link", "set", "dev", device, "up"]);
        }
        // Packets put together on their way in would pass as one, whatever the size of the next link.
        inside(router, &["ethtool", "-K", CLIENT_DEVICE, "gro", "off"]);
        for (gateway, mss) in [("198.18.1.1", "1460"), ("2001:2:0:1::1", "1440")] {
            ip(&[
                "-n",
                host_name(),
                "route",
                "add",
                "default",
                "via",
                gateway,
                "advmss",
                mss,
            ]);
        }
        // For the server's kernel; tidegate answers through the router from which it was asked.
        for (network, gateway) in [("198.18.1.0/24", "198.18.0.2"), ("2001:2:0:1::/64", "2001:2::2")] {
            let server = NAMESPACES.namespace(Place::Server);
            ip(&["-n", &server, "route", "add", network, "via", gateway]);
        }
        host
    }

    /// Fetches `url` by curl on the host into the file `output`.
    fn fetch(&self, url: &str, output: &Path) {
        let mut command = in_host("curl");
        command.args([
            "-q",
            "--silent",
            "--show-error",
            "--fail",
            "--globoff",
            "--noproxy",
            "*",
        ]);
        command.arg("--output").arg(output).arg(url);
        run(command, LIMIT).expect_success();
    }
}

impl Drop for Host<'_> {
    fn drop(&mut self) {
        remove();
    }
}

/// Removes the host if it is there, also one that an interrupted run left behind.
fn remove() {
    if !Path::new("/run/netns").join(host_name()).exists() {
        return;
    }
    // Removed by name the link is gone when this returns; with its namespace, some time later. It may not be there yet.
    for arguments in [
        &["-n", host_name(), "link", "delete", "dev", HOST_DEVICE][..],
        &["netns", "delete", host_name()],
    ] {
        match Command::new("ip").args(arguments).output() {
            Ok(output) if output.status.success() => {}
            Ok(output) => report(format_args!(
                "ip {}: {}",
                arguments.join(" "),
                String::from_utf8_lossy(&output.stderr).trim()
            )),
            Err(error) => report(format_args!("starting ip: {error}")),
        }
    }
}

/// Runs `ip` with `arguments`, which must succeed.
fn ip(arguments: &[&str]) {
    let mut command = Command::new("ip");
    command.args(arguments);
    run(command, LIMIT).expect_success();
}

/// Runs `command` in `namespace`, which must succeed.
fn inside(namespace: &str, command: &[&str]) {
    ip(&[&["netns", "exec", namespace][..], command].concat());
}

/// `program`, to be run on the host.
fn in_host(program: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", host_name(), program]);
    command
}

#[test]
fn icmp_of_a_router_makes_segments_fit_the_path() {
    const SIZE: usize = 2_000_000;
    const DOWNLOADS: u64 = 4;
    let Some(lab) = Lab::up(2) else { return };
    let root = directory();
    let expected = write_file(&mut Random::new(26), &root.path().join("file"), SIZE);
    let root_argument = root.path().to_string_lossy();
    let server = Server::start(&lab, &["--queues", "2", "--root", &root_argument]);
    let host = Host::behind_client(&lab, 1300, 1500);
    for address in BOTH_FAMILIES {
        let received = root.path().join("received");
        let started = Instant::now();
        for _ in 0..DOWNLOADS {
            host.fetch(&url(address, "/file"), &received);
            assert_eq!(sha256_of_file(&received), expected, "what {address} sent differs");
        }
        report(format_args!(
            "{DOWNLOADS} times {SIZE} bytes from {address} over a link of 1300 bytes: equal, {:.1?}",
            started.elapsed()
        ));
        // The rest of ICMP is the kernel's.
        let mut ping = in_host("ping");
        ping.args(["-n", "-c3", "-i0.2", "-W2", &address.to_string()]);
        let output = run(ping, LIMIT).expect_success().stdout;
        assert!(output.contains("3 received, 0% packet loss"), "{output}");
    }
    server.wait_until_no_connection();
    let counters = server.stop();
    counters.expect_redirects_received();
    counters.expect_frames_whole();
    let (redirected, told) = (counters.sum(REDIRECTS_TOO_BIG), counters.sum(TOO_BIG_IN));
    assert_eq!(redirected, told, "every message reached the engine, on whichever shard");
    assert_eq!(
        counters.sum(PATH_MTU_REDUCED),
        2 * DOWNLOADS,
        "each connection learned the size of the path once"
    );
    assert!(counters.sum(PASSED_NOT_TCP) >= 6, "echo requests left to the kernel");
    report(format_args!("{told} messages of the router"));
}

#[test]
fn a_link_that_drops_large_packets_in_silence_is_found_out() {
    const SIZE: usize = 300_000;
    let Some(lab) = Lab::up(1) else { return };
    let root = directory();
    let expected = write_file(&mut Random::new(27), &root.path().join("file"), SIZE);
    let root_argument = root.path().to_string_lossy();
    let server = Server::start(&lab, &["--root", &root_argument]);
    let host = Host::behind_client(&lab, 1500, 1300);
    for address in BOTH_FAMILIES {
        let received = root.path().join("received");
        let started = Instant::now();
        host.fetch(&url(address, "/file"), &received);
        assert_eq!(sha256_of_file(&received), expected, "what {address} sent differs");
        report(format_args!(
            "{SIZE} bytes from {address} through a black hole: equal, {:.1?}",
            started.elapsed()
        ));
    }
    server.wait_until_no_connection();
    let counters = server.stop();
    assert_eq!(counters.sum(TOO_BIG_IN), 0, "nobody told");
    assert_eq!(counters.sum(PATH_MTU_BLACK_HOLES), 2, "one for each family");
}
