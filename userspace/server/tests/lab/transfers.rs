//! Bytes arrive as they were sent, and none of them passes the server's kernel TCP.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use tidegate_random::Random;

use crate::fixture::client::{bench_echo, curl, curl_to};
use crate::fixture::counters::Counters;
use crate::fixture::data::{directory, file_size, sha256_of_file, write_file};
use crate::fixture::server::Server;
use crate::fixture::{BOTH_FAMILIES, Lab, report, run, url};

const TRANSFER_LIMIT: Duration = Duration::from_secs(60);

/// Stops the server once its connections have ended, and holds it to account for every frame.
fn stop_and_check_path(lab: &Lab, server: Server<'_>, kernel_before: u64) -> Counters {
    server.wait_until_no_connection();
    let kernel = lab.kernel_tcp_segments_in() - kernel_before;
    let counters = server.stop();
    let redirected = counters.expect_redirects_received();
    counters.expect_frames_whole();
    report(format_args!(
        "{redirected} frames redirected to AF_XDP, {kernel} TCP segments to the server's kernel"
    ));
    assert_eq!(kernel, 0, "TCP segments reached the kernel of the server's namespace");
    counters
}

fn megabytes_per_second(bytes: u64, took: Duration) -> f64 {
    bytes as f64 / 1e6 / took.as_secs_f64()
}

#[test]
fn a_file_of_200_megabytes_by_curl_over_both_families() {
    const SIZE: usize = 200_000_000;
    let Some(lab) = Lab::up(1) else { return };
    let root = directory();
    let expected = write_file(&mut Random::new(200), &root.path().join("large"), SIZE);
    let root_argument = root.path().to_string_lossy();
    let server = Server::start(&lab, &["--root", &root_argument]);
    let kernel_before = lab.kernel_tcp_segments_in();
    for address in BOTH_FAMILIES {
        let received = root.path().join("received");
        let started = Instant::now();
        run(curl_to(&url(address, "/large"), &received), TRANSFER_LIMIT).expect_success();
        let rate = megabytes_per_second(SIZE as u64, started.elapsed());
        assert_eq!(sha256_of_file(&received), expected, "what {address} sent differs");
        report(format_args!("{SIZE} bytes from {address}: equal, {rate:.0} MB/s"));
    }
    stop_and_check_path(&lab, server, kernel_before);
}

#[test]
fn a_thousand_files_in_parallel_by_curl_over_both_families() {
    const FILES: usize = 1000;
    // The ends of the range, and sizes around a segment and a large frame.
    const FIRST_SIZES: [usize; 8] = [1, 2, 1447, 1448, 1449, 65_535, 65_536, 1_000_000];
    let Some(lab) = Lab::up(1) else { return };
    let root = directory();
    let received = directory();
    let mut random = Random::new(1000);
    let mut config = String::new();
    let mut expected = Vec::new();
    let mut total = 0;
    for number in 0..FILES {
        let name = format!("file-{number:04}");
        let drawn = file_size(&mut random);
        let size = FIRST_SIZES.get(number).copied().unwrap_or(drawn);
        total += size;
        expected.push((name.clone(), write_file(&mut random, &root.path().join(&name), size)));
        let url = url(BOTH_FAMILIES[number % 2], &format!("/{name}"));
        let output = received.path().join(&name);
        writeln!(config, "url = \"{url}\"\noutput = \"{}\"", output.display())
            .expect("a String takes all that is written");
    }
    let config_path = received.path().join("curl.config");
    std::fs::write(&config_path, config).unwrap_or_else(|error| panic!("writing {}: {error}", config_path.display()));

    let root_argument = root.path().to_string_lossy();
    let server = Server::start(&lab, &["--root", &root_argument]);
    let kernel_before = lab.kernel_tcp_segments_in();
    let mut command = curl();
    command.args(["--parallel", "--parallel-max", "50", "--config"]);
    command.arg(&config_path);
    let started = Instant::now();
    run(command, TRANSFER_LIMIT).expect_success();
    let took = started.elapsed();
    for (name, digest) in &expected {
        let path = received.path().join(name);
        assert_eq!(&sha256_of_file(&path), digest, "{name} differs");
    }
    report(format_args!(
        "{FILES} files, {total} bytes, 50 at once over IPv4 and IPv6: equal, {took:.1?}"
    ));
    stop_and_check_path(&lab, server, kernel_before);
}

#[test]
fn an_echo_of_100_megabytes_with_half_close_over_both_families() {
    const SIZE: u64 = 100_000_000;
    let Some(lab) = Lab::up(1) else { return };
    let server = Server::start(&lab, &[]);
    let kernel_before = lab.kernel_tcp_segments_in();
    for address in BOTH_FAMILIES {
        let started = Instant::now();
        run(bench_echo(address, SIZE, 1, 100), TRANSFER_LIMIT).expect_success();
        let rate = megabytes_per_second(SIZE, started.elapsed());
        report(format_args!("{SIZE} bytes echoed by {address}: equal, {rate:.0} MB/s"));
    }
    stop_and_check_path(&lab, server, kernel_before);
}

#[test]
fn echoes_on_several_connections_at_once_over_both_families() {
    const CONNECTIONS: u32 = 8;
    const SIZE: u64 = 4_000_000;
    let Some(lab) = Lab::up(1) else { return };
    let server = Server::start(&lab, &[]);
    let kernel_before = lab.kernel_tcp_segments_in();
    for address in BOTH_FAMILIES {
        let started = Instant::now();
        let command = bench_echo(address, SIZE, CONNECTIONS, 8);
        run(command, TRANSFER_LIMIT).expect_success();
        report(format_args!(
            "{CONNECTIONS} echoes of {SIZE} bytes at once by {address}: equal, {:.1?}",
            started.elapsed()
        ));
    }
    let counters = stop_and_check_path(&lab, server, kernel_before);
    assert_eq!(
        counters.sum(crate::fixture::counters::PASSIVE_OPENS),
        u64::from(2 * CONNECTIONS),
        "connections the server accepted"
    );
}
