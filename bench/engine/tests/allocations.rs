//! Allocations of the engine and the HTTP service.
#![allow(missing_docs)]

use std::hint::black_box;

use tidegate_engine_bench::{CountingAllocator, Driver, EngineServer, Page, allocations};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// The allocations of a connection for itself from SYN to TIME-WAIT, once the tables of the engine have grown.
const OF_A_CONNECTION: u64 = 2;

#[test]
fn the_counter_counts() {
    let before = allocations();
    let mut numbers = black_box(vec![1_u8]);
    numbers.reserve_exact(1000);
    assert_eq!(allocations() - before, 2);
    drop(numbers);
    assert_eq!(allocations() - before, 2);
}

#[test]
fn a_request_on_a_persistent_connection_allocates_nothing() {
    for page in [Page::SmallFile, Page::BuiltIn] {
        let mut driver = Driver::new(EngineServer::with_page(page, 1, 1), 1);
        driver.open_all();
        driver.requests(100);
        let cost = driver.requests(1000);
        assert_eq!(cost.operations, 1000);
        assert_eq!(cost.allocations, 0, "{page:?}");
    }
}

#[test]
fn requests_on_many_persistent_connections_allocate_nothing() {
    let mut driver = Driver::new(EngineServer::new(1024, 1), 1024);
    driver.open_all();
    driver.requests(10 * 1024);
    assert_eq!(driver.requests(10 * 1024).allocations, 0);
}

#[test]
fn a_whole_connection_allocates_no_more_than_its_own() {
    for clients in [1, 256] {
        let mut driver = Driver::new(EngineServer::new(clients, clients), clients);
        driver.whole_connections(1024);
        let cost = driver.whole_connections(1024);
        assert!(
            cost.allocations <= OF_A_CONNECTION * cost.operations,
            "{clients} at a time: {} allocations for {} connections",
            cost.allocations,
            cost.operations
        );
    }
}
