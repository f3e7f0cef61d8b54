//! Builds the XDP program from source, to be embedded in the library.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Names an object to embed instead of building one.
const OBJECT_VARIABLE: &str = "TIDEGATE_EBPF_OBJECT";

/// Beside the object: what runs it beside other programs, and the programs of the benchmarks.
const BESIDE: [&str; 2] = ["xdp-dispatcher.o", "traffic.o"];

fn main() {
    let out = directory("OUT_DIR");
    let object = out.join("tidegate.o");

    // For the build script of tidegate-flood, which embeds what the same build puts beside the object.
    println!("cargo:objects={}", out.display());
    println!("cargo:rerun-if-env-changed={OBJECT_VARIABLE}");
    if let Some(given) = env::var_os(OBJECT_VARIABLE) {
        let given = PathBuf::from(given);
        let beside = BESIDE.map(|name| (given.with_file_name(name), out.join(name)));
        for (given, object) in [(given, object)].into_iter().chain(beside) {
            println!("cargo:rerun-if-changed={}", given.display());
            if let Err(error) = fs::copy(&given, object) {
                panic!("{OBJECT_VARIABLE}: cannot copy {}: {error}", given.display());
            }
        }
        return;
    }

    let manifest = directory("CARGO_MANIFEST_DIR");
    let root = match manifest.join("../..").canonicalize() {
        Ok(root) => root,
        Err(error) => panic!("no repository around {}: {error}", manifest.display()),
    };
    let script = root.join("scripts/build-ebpf.sh");
    for source in [
        "ebpf/src",
        "ebpf/abi/src",
        "ebpf/traffic",
        "ebpf/Cargo.toml",
        "ebpf/Cargo.lock",
        "scripts/build-ebpf.sh",
        "scripts/ebpf-toolchain.sh",
    ] {
        println!("cargo:rerun-if-changed={}", root.join(source).display());
    }
    build(&script, &object, &out.join("ebpf-target"));
}

fn directory(variable: &str) -> PathBuf {
    match env::var_os(variable) {
        Some(path) => PathBuf::from(path),
        None => panic!("{variable} is not set; this is a build script of cargo"),
    }
}

fn build(script: &Path, object: &Path, target: &Path) {
    // It inherits nothing of what cargo sets for this build.
    let output = match Command::new(script).arg(object).arg(target).output() {
        Ok(output) => output,
        Err(error) => panic!("cannot run {}: {error}", script.display()),
    };
    if !output.status.success() {
        eprint!("{}", String::from_utf8_lossy(&output.stdout));
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        panic!("{} failed ({}); what it said is above", script.display(), output.status);
    }
    if !object.is_file() {
        panic!("{} left no object at {}", script.display(), object.display());
    }
}
