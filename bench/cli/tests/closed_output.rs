//! Standard output whose reader is gone, or that cannot be written to.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output, Stdio};
use std::thread;

/// Answers one request on each connection.
fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || {
                let mut stream = stream.unwrap();
                let mut buffer = [0; 4096];
                while matches!(stream.read(&mut buffer), Ok(count) if count > 0) {
                    let response = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
                    if stream.write_all(response).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// Runs the program with standard output that nobody reads.
fn run(arguments: &[&str], stdout: Stdio) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidegate-bench"))
        .args(arguments)
        .stdout(stdout)
        .output()
        .expect("the program runs")
}

fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

#[test]
fn results_are_written_to_files_though_nobody_reads_standard_output() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("http://{}/", server());
    for arguments in [
        &["load", "--duration", "50ms"][..],
        &["rps", "--connections", "2", "--warm-up", "10ms", "--duration", "50ms"],
        &["hold", "--connections", "2", "--duration", "10ms"],
        &["stream", "down"],
    ] {
        for (stdout, code) in [(closed as fn() -> Stdio, 0), (full, 1)] {
            let json = directory.path().join("results.json");
            let mut all = arguments.to_vec();
            all.extend(["--url", &url, "--json", json.to_str().unwrap()]);
            let output = run(&all, stdout());
            let errors = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(code), "{all:?}: {errors}");
            assert!(!errors.contains("panicked"), "{all:?}: {errors}");
            assert_eq!(
                errors.contains("cannot write to standard output"),
                code == 1,
                "{errors}"
            );
            let text = fs::read_to_string(&json).unwrap();
            assert!(text.starts_with('{'), "{all:?}: {text}");
            fs::remove_file(json).unwrap();
        }
    }
}

#[test]
fn a_failure_is_told_by_the_exit_code_though_nobody_reads_the_reason() {
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate-bench"))
        .args([
            "load",
            "--url",
            "http://127.0.0.1:1/",
            "--json",
            "/no-such-directory/file",
        ])
        .stdout(closed())
        .stderr(closed())
        .status()
        .expect("the program runs");
    assert_eq!(output.code(), Some(1));
}
