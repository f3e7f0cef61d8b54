//! The time until new clients are served again.

use std::thread;
use std::time::{Duration, Instant};

use tidegate_args::url::Url;

use crate::probe::exchange;

/// The time that connecting, and the response, may take. A client that lost a segment takes longer.
const TIMEOUT: Duration = Duration::from_millis(100);

/// The pause between two clients: they are not to be a load.
const PAUSE: Duration = Duration::from_millis(5);

/// The clients that have to be served one after the other.
const IN_A_ROW: u32 = 10;

/// Asks the server for `url` again and again. Returns the time from `since` until the first of ten clients in a row had
/// its response, each in time; `None` if there were none before `deadline`.
pub(super) fn time_until_served(url: &Url, body: &[u8], since: Instant, deadline: Instant) -> Option<Duration> {
    let is_served = || exchange(url, body, TIMEOUT).is_ok();
    first_of_row(is_served, since, deadline)
}

fn first_of_row(mut is_served: impl FnMut() -> bool, since: Instant, deadline: Instant) -> Option<Duration> {
    let mut first = None;
    let mut served = 0;
    while Instant::now() < deadline {
        if is_served() {
            first.get_or_insert_with(|| since.elapsed());
            served += 1;
            if served == IN_A_ROW {
                return first;
            }
        } else {
            first = None;
            served = 0;
        }
        thread::sleep(PAUSE);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_from_the_first_of_ten_in_a_row() {
        let since = Instant::now();
        let deadline = since + Duration::from_secs(60);
        let mut count = 0;
        // The seventh is the last that is not.
        let found = first_of_row(
            || {
                count += 1;
                count > 8 || count % 2 == 0
            },
            since,
            deadline,
        );
        assert_eq!(count, 17);
        assert!(found.unwrap() >= PAUSE * 7, "{found:?}");
    }

    #[test]
    fn nine_are_not_enough() {
        let since = Instant::now();
        let mut count = 0;
        let found = first_of_row(
            || {
                count += 1;
                count % 10 != 0
            },
            since,
            since + Duration::from_millis(300),
        );
        assert!(count > 10, "{count}");
        assert_eq!(found, None);
    }

    #[test]
    fn nobody_is_served_where_nobody_listens() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        drop(listener);
        let since = Instant::now();
        assert_eq!(
            time_until_served(&url, b"", since, since + Duration::from_millis(50)),
            None
        );
    }
}
