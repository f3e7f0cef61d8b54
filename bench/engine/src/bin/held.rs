//! Holds connections in memory and says what each takes, by table; then ends them and says what is kept.
//!
//! The clients are templates of 12 bytes each, made before anything is measured. Every connection is opened, asks for a
//! page, and is answered; then they are idle until nothing of that is left. Memory is that of the process (VmRSS) and
//! that of the tables, as the engine tells; the flow filter, which the XDP program and the engine share, is what it
//! would take of a map.

use std::fs;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tidegate_abi::flow_filter::{BUCKET_WORDS, FlowHasher, RANDOM_WORDS};
use tidegate_engine_bench::{Driver, EngineServer, Page};
use tidegate_tcp::engine::TableMemory;

/// The server's.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Bytes that a connection may take, with its part of all tables.
const BOUND: f64 = 256.0;

/// The number of connections that segments are compared with.
const FEW: u32 = 1000;

/// Bursts of requests on connections in random order.
const BURSTS: u64 = 4096;

/// The time that the allocator is given to return what tables left behind when they grew.
const SETTLE: Duration = Duration::from_secs(12);

/// The longest that the allocator is given to return pages.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Parser)]
#[command(about = "Holds connections in memory, and says what each takes and what is kept when they are gone")]
struct Arguments {
    /// Connections
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u32).range(1000..=100_000_000))]
    connections: u32,
}

fn main() -> ExitCode {
    match hold(Arguments::parse().connections) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("held: cannot read /proc/self/status, which tells the memory in use: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all figures are within their bounds.
fn hold(connections: u32) -> io::Result<bool> {
    let few = segment_nanos(&mut opened(FEW));
    let mut driver = Driver::new(EngineServer::with_page(Page::BuiltIn, connections, FEW), connections);
    // The tables of the first connections, caches and pools are there.
    driver.warm_up();
    let before = resident_bytes()?;
    driver.open_all();
    println!("{connections} connections are open");
    driver.serve_all();
    println!("all were answered");
    driver.pass(Duration::from_secs(1));
    std::thread::sleep(SETTLE);
    let held = resident_bytes()?.saturating_sub(before);
    let tables = driver.server().engine().table_memory();
    let each = print_memory(connections, &tables, held);
    let many = segment_nanos(&mut driver);
    println!(
        "a segment among {FEW} connections takes {few:.0} ns, among these {many:.0} ns: {:.2} times",
        many / few
    );
    driver.end_all();
    driver.pass(Duration::from_secs(120));
    let population = driver.server().engine().population();
    println!("all are gone: {population:?}");
    let begin = std::time::Instant::now();
    let mut after = resident_bytes()?;
    while after > before + before / 10 && begin.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(200));
        after = resident_bytes()?;
    }
    let tables = driver.server().engine().table_memory();
    println!(
        "resident memory: {before} bytes before, {after} after {:.1} s ({:+.1} %); tables keep {} bytes",
        begin.elapsed().as_secs_f64(),
        (after as f64 / before as f64 - 1.0) * 100.0,
        tables.total(),
    );
    Ok(each <= BOUND && many <= 4.0 * few)
}

/// A server with so many connections, all of which were answered.
fn opened(connections: u32) -> Driver<EngineServer> {
    let mut driver = Driver::new(EngineServer::with_page(Page::BuiltIn, connections, FEW), connections);
    driver.open_all();
    driver.serve_all();
    driver
}

/// The time that a segment takes on connections in random order, in nanoseconds.
fn segment_nanos(driver: &mut Driver<EngineServer>) -> f64 {
    driver.random_segments(BURSTS);
    let nanos = driver.random_segments(BURSTS).nanos_per_segment();
    driver.acknowledge_random();
    nanos
}

/// Prints what a connection takes, and returns all of it in bytes.
fn print_memory(connections: u32, tables: &TableMemory, resident: u64) -> f64 {
    let each = |bytes: usize| bytes as f64 / f64::from(connections);
    let hasher = FlowHasher::new(u64::from(connections), [0; RANDOM_WORDS]);
    let filter = each(hasher.buckets() as usize * (BUCKET_WORDS * 4 + 1));
    println!("bytes of each connection, by table:");
    for (name, bytes) in [
        ("connection, with its application's state", tables.connections),
        ("timer", tables.timers),
        ("place among those of its source", tables.places),
        ("generation of its next hop", tables.next_hops),
        ("flow table", tables.flows),
        ("sources, together", tables.sources),
        ("half-open records, together", tables.half_open),
        ("records in TIME-WAIT, together", tables.time_wait),
    ] {
        println!("  {name:<44}{:>10.2}", each(bytes));
    }
    println!("  {:<44}{filter:>10.2}", "flow filter, in its maps");
    let total = each(tables.total()) + filter;
    println!("  {:<44}{total:>10.2}", "all");
    println!(
        "  {:<44}{:>10.2}",
        "resident memory, with the flow filter",
        each(resident as usize) + filter
    );
    total.max(each(resident as usize) + filter)
}

/// Memory of this process that is in RAM, in bytes.
fn resident_bytes() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/self/status")?;
    text.lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"))
        .and_then(|value| value.parse::<u64>().ok())
        .map(|kibibytes| kibibytes * 1024)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it has no line VmRSS in kB"))
}
