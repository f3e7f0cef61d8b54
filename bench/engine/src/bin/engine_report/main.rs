//! The engine's figures in one table, and smoltcp's beside them from the same run.
//!
//! Everything that is compared takes turns, slice by slice; what is printed is the median of the slices. Only the
//! side that is measured is on the clock: its frames are ready before it starts, and its answers are read after it
//! has stopped.

mod machine;
mod table;
mod threads;

use std::io;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;
use tidegate_engine_bench::{CountingAllocator, Driver, EngineServer, Page, Pair, SmoltcpServer, is_large_run};

use crate::machine::Machine;
use crate::table::{Subject, Turns, print, print_ratio};
use crate::threads::{Worker, two_cpus};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// TIME-WAIT records of an engine with default settings.
const DEFAULT_TIME_WAIT: u32 = 131_072;

/// Requests between two looks at the clock.
const PIECE: u64 = 4096;

/// Bursts of random connections between two looks at the clock.
const BURSTS: u64 = 64;

/// Bursts on connections in random order before anything counts: with their acknowledgments they take longer than a
/// retransmission timeout by the engine's clock, so the timers that every request leaves behind fire as often as they
/// are set.
const SETTLE: u64 = 12_000;

#[derive(Parser)]
#[command(
    about = "Measures the engine in memory, beside smoltcp; with TIDEGATE_BENCH_LARGE=1 also 5 million connections"
)]
struct Arguments {
    /// Slices of each figure, of which the median is printed
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Length of a slice in milliseconds
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    slice: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let turns = Turns {
        runs: arguments.runs,
        slice: Duration::from_millis(arguments.slice),
        settle: Duration::from_millis(arguments.slice),
    };
    let machine = Machine::read();
    println!("{machine}");
    println!(
        "Medians of {} interleaved slices of {} ms; one core; HTTP parsed; checksums verified; no timestamps.",
        arguments.runs, arguments.slice
    );
    whole_connections(&turns, &machine);
    requests(&turns, &machine);
    client_side(&turns, &machine);
    if let Err(error) = segments(&turns, &machine) {
        eprintln!("engine-report: cannot read /proc/self/status, which tells the memory in use: {error}");
        return ExitCode::FAILURE;
    }
    // Last: the memory that its threads free is taken again by what comes after, whose size could not be told then.
    if let Err(error) = two_threads(&turns, &machine) {
        eprintln!("engine-report: cannot read which CPUs may be used: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn whole_connections(turns: &Turns, machine: &Machine) {
    let engine = |label: &str, connections, time_wait| {
        let mut driver = Driver::new(EngineServer::new(connections, time_wait), connections);
        driver.whole_connections(u64::from(time_wait));
        Subject::new(label, move || driver.whole_connections(1))
    };
    let smoltcp = |label: &str, connections| {
        let mut driver = Driver::new(SmoltcpServer::new(connections), connections);
        Subject::new(label, move || driver.whole_connections(1))
    };
    let mut subjects = [
        engine("engine, 64 at a time", 64, 64),
        smoltcp("smoltcp, 64 at a time", 64),
        engine("engine, 1,024 at a time", 1024, 1024),
        smoltcp("smoltcp, 1,024 at a time", 1024),
        engine("engine, 1,024, TIME-WAIT full (131,072)", 1024, DEFAULT_TIME_WAIT),
        engine("engine, 100,000 at a time", 100_000, 100_000),
    ];
    turns.take(&mut subjects);
    print("Whole connections of 7 segments, server side", &subjects, machine);
    print_ratio("engine / smoltcp, 64", &subjects[0], &subjects[1]);
    print_ratio("engine / smoltcp, 1,024", &subjects[2], &subjects[3]);
}

fn requests(turns: &Turns, machine: &Machine) {
    let engine = |label: &str, page, connections| {
        let mut driver = Driver::new(EngineServer::with_page(page, connections, 1), connections);
        driver.open_all();
        Subject::new(label, move || driver.requests(PIECE))
    };
    let smoltcp = |label: &str, connections| {
        let mut driver = Driver::new(SmoltcpServer::new(connections), connections);
        driver.open_all();
        Subject::new(label, move || driver.requests(PIECE))
    };
    let mut subjects = [
        engine("engine, 64 connections", Page::SmallFile, 64),
        smoltcp("smoltcp, 64 connections", 64),
        engine("engine, 1,024 connections", Page::SmallFile, 1024),
        smoltcp("smoltcp, 1,024 connections", 1024),
        engine("engine, 1,024, built-in page (1,125 bytes)", Page::BuiltIn, 1024),
        engine("engine, 100,000 connections", Page::SmallFile, 100_000),
    ];
    turns.take(&mut subjects);
    print("Keep-alive requests of 2 segments, server side", &subjects, machine);
    print_ratio("engine / smoltcp, 64", &subjects[0], &subjects[1]);
    print_ratio("engine / smoltcp, 1,024", &subjects[2], &subjects[3]);
}

fn client_side(turns: &Turns, machine: &Machine) {
    let connections = || Pair::new(1024, false);
    let requests = || {
        let mut pair = Pair::new(1024, true);
        pair.open_all();
        pair
    };
    let (mut first, mut second, mut third, mut fourth) = (connections(), connections(), requests(), requests());
    let mut subjects = [
        Subject::new("whole connections, client", move || first.whole_connections(1).client),
        Subject::new("whole connections, server", move || second.whole_connections(1).server),
        Subject::new("requests, client", move || third.requests(1).client),
        Subject::new("requests, server", move || fourth.requests(1).server),
    ];
    turns.take(&mut subjects);
    print(
        "Two engines, 1,024 connections: 6 segments each, or 2 for a request; with timestamps",
        &subjects,
        machine,
    );
}

/// Connections of each of two engines that memory has to be waited for.
const IN_MEMORY: u32 = 1_000_000;

fn two_threads(turns: &Turns, machine: &Machine) -> io::Result<()> {
    let Some((first, second, are_cores)) = two_cpus()? else {
        println!("\nTwo engines on two threads: not measured, there is one CPU");
        return Ok(());
    };
    let few = |cpu| {
        Worker::start(cpu, || {
            let mut driver = Driver::new(EngineServer::new(64, 1), 64);
            driver.open_all();
            move || driver.requests(16 * PIECE)
        })
    };
    let many = |cpu| {
        Worker::start(cpu, || {
            let mut driver = Driver::new(EngineServer::new(IN_MEMORY, 1), IN_MEMORY);
            driver.open_all();
            driver.random_segments(SETTLE);
            move || driver.random_segments(4 * BURSTS)
        })
    };
    let pair = |label: &str, start: &dyn Fn(usize) -> Worker| {
        let (one, other) = (Rc::new(start(first)), start(second));
        let alone = Rc::clone(&one);
        [
            Subject::new(&format!("{label}, one thread"), move || alone.work_alone()),
            Subject::new(&format!("{label}, two threads"), move || one.work_beside(&other)),
        ]
    };
    let mut subjects: Vec<_> = [pair("64 connections", &few), pair("1,000,000, in random order", &many)]
        .into_iter()
        .flatten()
        .collect();
    turns.take(&mut subjects);
    let what = if are_cores { "" } else { ", which share a core" };
    print(
        &format!("Requests, an engine on each of two threads, CPUs {first} and {second}{what}"),
        &subjects,
        machine,
    );
    print_ratio("two threads / one, in the cache", &subjects[1], &subjects[0]);
    print_ratio("two threads / one, in memory", &subjects[3], &subjects[2]);
    Ok(())
}

fn segments(turns: &Turns, machine: &Machine) -> io::Result<()> {
    let mut sizes = vec![(1024, "1,024"), (100_000, "100,000")];
    if is_large_run() {
        sizes.push((5_000_000, "5,000,000"));
    }
    let mut subjects = Vec::new();
    let mut memory = Vec::new();
    for (connections, label) in sizes {
        let mut driver = Driver::new(EngineServer::new(connections, 1), connections);
        let before = machine::resident_bytes()?;
        driver.open_all();
        let each = machine::resident_bytes()?.saturating_sub(before) / u64::from(connections);
        memory.push(format!("{each} bytes each for {label}"));
        driver.random_segments(SETTLE);
        subjects.push(Subject::new(&format!("among {label} connections"), move || {
            driver.random_segments(BURSTS)
        }));
    }
    turns.take(&mut subjects);
    print(
        "Requests of 3 segments on connections in random order, server side",
        &subjects,
        machine,
    );
    for subject in &subjects[1..] {
        print_ratio(&format!("1,024 / {}", subject.label()), &subjects[0], subject);
    }
    println!("  resident memory of established connections: {}", memory.join(", "));
    Ok(())
}
