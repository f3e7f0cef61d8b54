//! Takes over the object of the traffic programs, which `tidegate-runtime` builds together with its own.

use std::env;
use std::fs;
use std::path::PathBuf;

/// Set by cargo from what the build script of `tidegate-runtime` says: the directory of the objects.
const OBJECTS_VARIABLE: &str = "DEP_TIDEGATE_EBPF_OBJECTS";

const OBJECT: &str = "traffic.o";

fn main() {
    let from = directory(OBJECTS_VARIABLE).join(OBJECT);
    let to = directory("OUT_DIR").join(OBJECT);
    println!("cargo:rerun-if-changed={}", from.display());
    if let Err(error) = fs::copy(&from, &to) {
        panic!("cannot copy {} to {}: {error}", from.display(), to.display());
    }
}

fn directory(variable: &str) -> PathBuf {
    match env::var_os(variable) {
        Some(path) => PathBuf::from(path),
        None => panic!("{variable} is not set; this is a build script of cargo"),
    }
}
