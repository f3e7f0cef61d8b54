//! The commands `conns` and `kill`.
//!
//! They ask the shards from the client's thread, a slice at a time: the main loop only says who they are, and a shard
//! does one slice between two turns.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_control::{
    Bbr, Connection, ConnectionFilter, Connections, Killed, MAX_LISTED, Options, Sort, Timer, Transfer,
};
use tidegate_runtime::{Shards, StateCounts};
use tidegate_tcp::State;
use tidegate_tcp::engine::ConnectionInfo;
use tidegate_tcp::time::Instant;

use super::Client;
use crate::main_loop::MainLoop;

/// The connections of a listing unless a limit is given.
const LISTED: usize = 100;

/// The shards of a running server, and the services of its listeners.
pub(super) struct Target {
    pub(super) shards: Shards,
    services: Vec<&'static str>,
}

impl Target {
    /// The target of a client's request.
    ///
    /// # Errors
    ///
    /// A sentence: nothing is served at the moment, or the main loop does not answer.
    pub(super) fn of(client: &Client<'_>) -> Result<Self, String> {
        let find = |main: &mut MainLoop<'_>| {
            let Some(serving) = &main.serving else {
                return Err("there are no connections: the interfaces are gone, and waited for".to_owned());
            };
            let listeners = serving.listeners.iter();
            Ok(Self {
                shards: serving.runtime.shards(),
                services: listeners.map(|(listen, _)| listen.service.name()).collect(),
            })
        };
        client.caller.call(find).unwrap_or_else(|error| Err(error.to_string()))
    }

    /// A connection of `shard` at the time `now`, as it is told.
    fn told(&self, shard: u32, info: &ConnectionInfo, now: Instant) -> Connection {
        let service = info
            .listener
            .and_then(|listener| self.services.get(usize::from(listener.0)));
        Connection {
            shard,
            state: info.state.to_string(),
            local: info.local,
            peer: info.peer,
            service: service.map(|&name| name.to_owned()),
            recv_q: info.unread as u64,
            send_q: info.unacknowledged as u64,
            timer: info.timer.map(|(timer, at)| Timer {
                name: timer.name().to_owned(),
                in_ms: millis(at.since(now)),
            }),
            srtt_us: info.srtt.map(micros),
            options: info.options.map(|options| Options {
                mss: options.mss,
                snd_wscale: options.send_window_shift,
                rcv_wscale: options.receive_window_shift,
                ts: options.timestamps,
                sack: options.sack,
                ecn: options.ecn,
            }),
            transfer: info.transfer.as_ref().map(|transfer| Transfer {
                cwnd: transfer.cwnd,
                ssthresh: transfer.ssthresh,
                pacing_rate: transfer.pacing_rate,
                bbr: transfer.model.as_ref().map(|model| Bbr {
                    state: model.state.to_owned(),
                    bw: model.bandwidth,
                    min_rtt_us: model.min_rtt.map(micros),
                    pacing_gain: model.pacing_gain,
                    cwnd_gain: model.cwnd_gain,
                }),
                in_flight: transfer.in_flight,
                snd_wnd: transfer.send_window,
                rcv_wnd: transfer.receive_window,
                rttvar_us: transfer.rttvar.map(micros),
                rto_us: micros(transfer.rto),
                backoff: transfer.backoffs,
                bytes_sent: transfer.bytes_sent,
                bytes_acked: transfer.bytes_acked,
                bytes_received: transfer.bytes_received,
                retrans: transfer.retransmitted_segments,
                bytes_retrans: transfer.retransmitted_bytes,
                lastrcv_ms: millis(transfer.idle),
                age_s: transfer.age.as_secs(),
            }),
        }
    }
}

fn micros(time: Duration) -> u64 {
    time.as_micros() as u64
}

fn millis(time: Duration) -> u64 {
    time.as_millis() as u64
}

/// Lists the connections that `filter` selects, at most `limit` of them: the first that are found, or by `sort` the
/// largest. All of them are counted.
///
/// # Errors
///
/// A sentence: the filter is none, the limit is too high, or a shard does not answer.
pub(super) fn list(
    client: &Client<'_>,
    filter: &ConnectionFilter,
    sort: Option<Sort>,
    limit: Option<usize>,
) -> Result<Connections, String> {
    let filter = parse(filter)?;
    let limit = limit.unwrap_or(LISTED);
    if limit > MAX_LISTED {
        return Err(format!("limit is {limit}; at most {MAX_LISTED} connections are listed"));
    }
    let target = Target::of(client)?;
    let mut walk = target.shards.walk(filter);
    let mut kept = Kept::new(sort, limit);
    let mut states = StateCounts::default();
    while let Some(slice) = walk.next_slice(kept.wants_more()).map_err(|error| error.to_string())? {
        states.merge(&slice.states);
        for info in &slice.connections {
            kept.add(target.told(slice.shard, info, slice.now));
        }
    }
    Ok(Connections {
        connections: kept.finish(),
        selected: states.total(),
        states: by_name(&states),
    })
}

/// The states that there are connections in.
pub(super) fn by_name(states: &StateCounts) -> BTreeMap<String, u64> {
    let some = states.iter().filter(|&(_, count)| count > 0);
    some.map(|(state, count)| (state.to_string(), count)).collect()
}

/// Resets the connections that `filter` selects; all only if that is said.
///
/// # Errors
///
/// A sentence: the filter is none or empty, or a shard does not answer.
pub(super) fn kill(client: &Client<'_>, filter: &ConnectionFilter, all: bool) -> Result<Killed, String> {
    let filter = parse(filter)?;
    if filter.is_all() != all {
        return Err(if all {
            "`all` is given with a filter; give one of the two"
        } else {
            "the filter is empty, so that all connections would be reset; if that is meant, give `all`"
        }
        .to_owned());
    }
    if filter.states.contains(&State::TimeWait) {
        return Err("nothing is left to be reset in TIME-WAIT; it ends by itself".to_owned());
    }
    let killed = Target::of(client)?
        .shards
        .reset(filter)
        .map_err(|error| error.to_string())?;
    tracing::info!("{killed} connections were reset by command");
    Ok(Killed { killed })
}

fn parse(filter: &ConnectionFilter) -> Result<tidegate_runtime::ConnectionFilter, String> {
    let states = filter.states.iter().map(|name| parse_state(name));
    Ok(tidegate_runtime::ConnectionFilter {
        states: states.collect::<Result<_, _>>()?,
        peer: match &filter.peer {
            Some(prefix) => Some(
                prefix
                    .parse()
                    .map_err(|error: tidegate_runtime::Error| error.to_string())?,
            ),
            None => None,
        },
        local: filter.listener,
    })
}

/// The state of this name, as RFC 9293 or `ss` writes it, in letters of any case.
///
/// # Errors
///
/// A sentence with all names.
pub(crate) fn parse_state(name: &str) -> Result<State, String> {
    let connections = State::ALL
        .into_iter()
        .filter(|state| !matches!(state, State::Listen | State::Closed));
    let asked = if name.eq_ignore_ascii_case("syn-recv") {
        "syn-received"
    } else {
        name
    };
    let found = connections
        .clone()
        .find(|state| state.to_string().eq_ignore_ascii_case(asked));
    found.ok_or_else(|| {
        let names: Vec<String> = connections.map(|state| state.to_string().to_lowercase()).collect();
        format!("there is no state `{name}`; there are: {}", names.join(", "))
    })
}

/// The connections that a listing keeps: never many more than it may have.
struct Kept {
    sort: Option<Sort>,
    limit: usize,
    connections: Vec<Connection>,
}

impl Kept {
    fn new(sort: Option<Sort>, limit: usize) -> Self {
        Self {
            sort,
            limit,
            connections: Vec::new(),
        }
    }

    fn wants_more(&self) -> bool {
        self.limit > 0 && (self.sort.is_some() || self.connections.len() < self.limit)
    }

    fn add(&mut self, connection: Connection) {
        if self.wants_more() {
            self.connections.push(connection);
            // By half, so that sorting is paid for by what was added.
            if self.connections.len() >= 2 * self.limit.max(1000) {
                self.cut();
            }
        }
    }

    fn cut(&mut self) {
        if let Some(sort) = self.sort {
            self.connections
                .sort_by_key(|connection| Reverse(key(connection, sort)));
        }
        self.connections.truncate(self.limit);
    }

    fn finish(mut self) -> Vec<Connection> {
        self.cut();
        self.connections
    }
}

fn key(connection: &Connection, sort: Sort) -> u64 {
    let transfer = connection.transfer.as_ref();
    match sort {
        Sort::Rtt => connection.srtt_us.unwrap_or(0),
        Sort::Bytes => transfer.map_or(0, |transfer| transfer.bytes_sent + transfer.bytes_received),
        Sort::Age => transfer.map_or(0, |transfer| transfer.age_s),
        Sort::Retrans => transfer.map_or(0, |transfer| u64::from(transfer.retrans)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(port: u16, srtt_us: u64) -> Connection {
        Connection {
            shard: 0,
            state: "ESTABLISHED".to_owned(),
            local: ([198, 18, 0, 1], 80).into(),
            peer: ([198, 18, 0, 2], port).into(),
            service: None,
            recv_q: 0,
            send_q: 0,
            timer: None,
            srtt_us: Some(srtt_us),
            options: None,
            transfer: None,
        }
    }

    #[test]
    fn the_largest_are_kept_however_many_there_are() {
        let mut kept = Kept::new(Some(Sort::Rtt), 3);
        for number in 0..10_000_u64 {
            // Every value once, in no order.
            kept.add(connection(number as u16, number * 7919 % 10_007));
            assert!(kept.connections.len() < 2000);
        }
        let mut all: Vec<u64> = (0..10_000).map(|number| number * 7919 % 10_007).collect();
        all.sort_unstable_by_key(|&srtt| Reverse(srtt));
        let found: Vec<u64> = kept
            .finish()
            .iter()
            .filter_map(|connection| connection.srtt_us)
            .collect();
        assert_eq!(found, all[..3]);
    }

    #[test]
    fn unsorted_the_first_are_kept_and_then_no_more_are_asked_for() {
        let mut kept = Kept::new(None, 2);
        for port in 0..5 {
            assert_eq!(kept.wants_more(), port < 2);
            kept.add(connection(port, 0));
        }
        let ports: Vec<u16> = kept.finish().iter().map(|connection| connection.peer.port()).collect();
        assert_eq!(ports, [0, 1]);
        assert!(!Kept::new(Some(Sort::Age), 0).wants_more());
    }

    #[test]
    fn states_have_the_names_of_the_rfc_and_of_ss() {
        for (name, state) in [
            ("ESTABLISHED", State::Established),
            ("time-wait", State::TimeWait),
            ("syn-recv", State::SynReceived),
            ("Syn-Received", State::SynReceived),
        ] {
            assert_eq!(parse_state(name), Ok(state));
        }
        let error = parse_state("opened").unwrap_err();
        assert!(
            error.contains("`opened`") && error.contains("established, fin-wait-1"),
            "{error}"
        );
        assert!(parse_state("listen").is_err(), "a listener is no connection");
    }

    #[test]
    fn what_is_wrong_with_a_filter_is_said() {
        let peer = ConnectionFilter {
            peer: Some("198.18.0.1/15".to_owned()),
            ..ConnectionFilter::default()
        };
        assert!(parse(&peer).unwrap_err().contains("write 198.18.0.0/15"));
        assert!(parse(&ConnectionFilter::default()).is_ok_and(|filter| filter.is_all()));
    }
}
