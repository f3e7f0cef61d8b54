//! `tidegate ctl conns` and `kill`.

use std::fmt::Write as _;
use std::net::SocketAddr;

use clap::Args;
use tidegate_control::{Client, Connection, ConnectionFilter, Connections, Killed, Request, Sort};
use tidegate_runtime::Prefix;
use tidegate_tcp::State;

use super::print;
use crate::control::parse_state;
use crate::failure::Failure;

/// The connections that are meant.
#[derive(Debug, Args)]
pub(crate) struct Filter {
    /// Only those in this state, such as established, time-wait or syn-recv; may be given several times
    #[arg(long, value_name = "STATE", value_parser = parse_state)]
    state: Vec<State>,
    /// Only those of peers whose address has this prefix, such as 198.18.0.0/24
    #[arg(long, value_name = "PREFIX")]
    peer: Option<Prefix>,
    /// Only those to this address and port of the server; 0.0.0.0 and :: stand for any address of their family
    #[arg(long, value_name = "ADDRESS:PORT")]
    listener: Option<SocketAddr>,
}

impl Filter {
    fn to_request(&self) -> ConnectionFilter {
        ConnectionFilter {
            states: self.state.iter().map(ToString::to_string).collect(),
            peer: self.peer.map(|prefix| prefix.to_string()),
            listener: self.listener,
        }
    }
}

/// Arguments of `tidegate ctl conns`.
#[derive(Debug, Args)]
pub(crate) struct ConnsArguments {
    #[command(flatten)]
    filter: Filter,
    /// List the largest first, instead of the first that are found
    #[arg(long)]
    sort: Option<Sort>,
    /// List so many connections, up to 10,000; all are counted
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    /// Only count them
    #[arg(long, conflicts_with_all = ["sort", "limit"])]
    count: bool,
    /// Print the server's reply, which docs/control.md describes
    #[arg(long)]
    json: bool,
}

/// Arguments of `tidegate ctl kill`.
#[derive(Debug, Args)]
pub(crate) struct KillArguments {
    #[command(flatten)]
    filter: Filter,
    /// Reset all connections; without it an empty filter is refused
    #[arg(long, conflicts_with_all = ["state", "peer", "listener"])]
    all: bool,
}

/// Lists connections.
///
/// # Errors
///
/// The server cannot be reached, or refuses.
pub(super) fn list(client: &mut Client, arguments: &ConnsArguments) -> Result<(), Failure> {
    let reply: Connections = client.call(&Request::Conns {
        filter: arguments.filter.to_request(),
        sort: arguments.sort,
        limit: Some(if arguments.count { 0 } else { arguments.limit }),
    })?;
    if arguments.json {
        print(&super::json(&reply)?)
    } else {
        print(&text(&reply))
    }
}

/// Resets connections.
///
/// # Errors
///
/// The server cannot be reached, or refuses.
pub(super) fn kill(client: &mut Client, arguments: &KillArguments) -> Result<(), Failure> {
    let reply: Killed = client.call(&Request::Kill {
        filter: arguments.filter.to_request(),
        all: arguments.all,
    })?;
    print(&format!("{} connections reset\n", reply.killed))
}

/// Two lines for each connection, and one with how many there are.
fn text(reply: &Connections) -> String {
    let mut text = String::new();
    if !reply.connections.is_empty() {
        let _ = writeln!(
            text,
            "{:<12} {:>8} {:>8} {:<28} {:<28} Service Shard",
            "State", "Recv-Q", "Send-Q", "Local Address:Port", "Peer Address:Port"
        );
    }
    for connection in &reply.connections {
        let _ = writeln!(
            text,
            "{:<12} {:>8} {:>8} {:<28} {:<28} {:<7} {}{}",
            connection.state,
            connection.recv_q,
            connection.send_q,
            connection.local.to_string(),
            connection.peer.to_string(),
            connection.service.as_deref().unwrap_or("-"),
            connection.shard,
            timer(connection)
        );
        let details = details(connection);
        if !details.is_empty() {
            let _ = writeln!(text, "\t{details}");
        }
    }
    let states: Vec<String> = reply
        .states
        .iter()
        .map(|(state, count)| format!("{state} {count}"))
        .collect();
    let by_state = if states.is_empty() {
        String::new()
    } else {
        format!(" ({})", states.join(", "))
    };
    let _ = writeln!(
        text,
        "{} connections{by_state}, {} listed",
        reply.selected,
        reply.connections.len()
    );
    text
}

/// The timer as `ss -o` writes it.
fn timer(connection: &Connection) -> String {
    let Some(timer) = &connection.timer else {
        return String::new();
    };
    let backoff = connection.transfer.as_ref().map_or(0, |transfer| transfer.backoff);
    let time = match timer.in_ms {
        millis @ 0..10_000 => format!("{millis}ms"),
        millis @ 10_000..600_000 => format!("{}sec", millis / 1000),
        millis => format!("{}min", millis / 60_000),
    };
    format!(" timer:({},{time},{backoff})", timer.name)
}

/// The second line, after `ss -tie`'s.
fn details(connection: &Connection) -> String {
    let mut words = Vec::new();
    if let Some(options) = &connection.options {
        for (is_used, name) in [(options.ts, "ts"), (options.sack, "sack"), (options.ecn, "ecn")] {
            if is_used {
                words.push(name.to_owned());
            }
        }
        if (options.snd_wscale, options.rcv_wscale) != (0, 0) {
            words.push(format!("wscale:{},{}", options.snd_wscale, options.rcv_wscale));
        }
    }
    let millis = |micros: u64| micros as f64 / 1000.0;
    let Some(transfer) = &connection.transfer else {
        return words.join(" ");
    };
    words.push(format!("rto:{}", millis(transfer.rto_us)));
    if let (Some(srtt), Some(rttvar)) = (connection.srtt_us, transfer.rttvar_us) {
        words.push(format!("rtt:{}/{}", millis(srtt), millis(rttvar)));
    }
    if let Some(options) = &connection.options {
        words.push(format!("mss:{}", options.mss));
    }
    words.push(format!("cwnd:{}B", transfer.cwnd));
    if let Some(ssthresh) = transfer.ssthresh {
        words.push(format!("ssthresh:{ssthresh}B"));
    }
    if let Some(bbr) = &transfer.bbr {
        let gain = |percent: u32| f64::from(percent) / 100.0;
        words.push(format!(
            "bbr:({},bw:{}bps,mrtt:{},pacing_gain:{},cwnd_gain:{})",
            bbr.state,
            bbr.bw * 8,
            millis(bbr.min_rtt_us.unwrap_or(0)),
            gain(bbr.pacing_gain),
            gain(bbr.cwnd_gain)
        ));
    }
    if let Some(rate) = transfer.pacing_rate {
        words.push(format!("pacing_rate:{}bps", rate * 8));
    }
    for (name, value) in [
        ("bytes_sent", transfer.bytes_sent),
        ("bytes_acked", transfer.bytes_acked),
        ("bytes_received", transfer.bytes_received),
        ("bytes_retrans", transfer.bytes_retrans),
        ("retrans", u64::from(transfer.retrans)),
        ("unacked", u64::from(transfer.in_flight)),
        ("snd_wnd", u64::from(transfer.snd_wnd)),
        ("rcv_wnd", u64::from(transfer.rcv_wnd)),
    ] {
        if value > 0 {
            words.push(format!("{name}:{value}"));
        }
    }
    words.push(format!("lastrcv:{} age:{}s", transfer.lastrcv_ms, transfer.age_s));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use tidegate_control::{Bbr, Options, Timer, Transfer};

    use super::*;

    #[test]
    fn connections_are_told_as_ss_does() {
        let open = Connection {
            shard: 1,
            state: "ESTABLISHED".to_owned(),
            local: "198.18.0.1:80".parse().unwrap(),
            peer: "198.18.0.2:40000".parse().unwrap(),
            service: Some("http".to_owned()),
            recv_q: 0,
            send_q: 1448,
            timer: Some(Timer {
                name: "on".to_owned(),
                in_ms: 204,
            }),
            srtt_us: Some(1500),
            options: Some(Options {
                mss: 1448,
                snd_wscale: 7,
                rcv_wscale: 6,
                ts: true,
                sack: true,
                ecn: false,
            }),
            transfer: Some(Transfer {
                cwnd: 14_480,
                ssthresh: None,
                pacing_rate: Some(12_375_000),
                bbr: Some(Bbr {
                    state: "probe_bw_cruise".to_owned(),
                    bw: 12_500_000,
                    min_rtt_us: Some(1400),
                    pacing_gain: 100,
                    cwnd_gain: 200,
                }),
                in_flight: 1448,
                snd_wnd: 64_256,
                rcv_wnd: 65_535,
                rttvar_us: Some(250),
                rto_us: 204_000,
                backoff: 1,
                bytes_sent: 2896,
                bytes_acked: 1448,
                bytes_received: 77,
                retrans: 0,
                bytes_retrans: 0,
                lastrcv_ms: 12,
                age_s: 3,
            }),
        };
        let waiting = Connection {
            state: "TIME-WAIT".to_owned(),
            service: None,
            send_q: 0,
            timer: Some(Timer {
                name: "timewait".to_owned(),
                in_ms: 59_000,
            }),
            srtt_us: None,
            options: None,
            transfer: None,
            ..open.clone()
        };
        let text = text(&Connections {
            connections: vec![open, waiting],
            selected: 70_000,
            states: [("ESTABLISHED".to_owned(), 69_999), ("TIME-WAIT".to_owned(), 1)].into(),
        });
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 5, "{text}");
        assert!(
            lines[1].starts_with("ESTABLISHED         0     1448 198.18.0.1:80 "),
            "{text}"
        );
        assert!(lines[1].ends_with(" http    1 timer:(on,204ms,1)"), "{text}");
        assert_eq!(
            lines[2],
            "\tts sack wscale:7,6 rto:204 rtt:1.5/0.25 mss:1448 cwnd:14480B \
             bbr:(probe_bw_cruise,bw:100000000bps,mrtt:1.4,pacing_gain:1,cwnd_gain:2) pacing_rate:99000000bps \
             bytes_sent:2896 bytes_acked:1448 bytes_received:77 unacked:1448 snd_wnd:64256 rcv_wnd:65535 lastrcv:12 age:3s"
        );
        assert!(lines[3].ends_with(" -       1 timer:(timewait,59sec,0)"), "{text}");
        assert_eq!(lines[4], "70000 connections (ESTABLISHED 69999, TIME-WAIT 1), 2 listed");
    }
}
