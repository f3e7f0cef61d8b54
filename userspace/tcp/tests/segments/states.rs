//! The eleven states (RFC 9293, section 3.3.2) as the connection listing shows them.

use crate::common::*;
use tidegate_tcp::State;
use tidegate_tcp::application::CloseReason;
use tidegate_tcp::counters::Counter;
use tidegate_tcp::wire::Options;

/// Every state a connection that came from a listener can be in.
const STATES: [State; 8] = [
    State::SynReceived,
    State::Established,
    State::FinWait1,
    State::FinWait2,
    State::CloseWait,
    State::Closing,
    State::LastAck,
    State::TimeWait,
];

/// A connection in `state`.
#[track_caller]
fn reach(state: State) -> Rig {
    reach_with(state, Options::default())
}

/// A connection in `state` whose SYN had these options.
#[track_caller]
fn reach_with(state: State, options: Options) -> Rig {
    let mut rig = Rig::new(config(), App::default());
    if state == State::SynReceived {
        rig.timestamp = options.timestamps.map(|timestamps| timestamps.value);
        rig.syn(options);
        rig.ack = rig.one().seq + 1;
        return rig;
    }
    rig.connect_with(options);
    if matches!(state, State::CloseWait | State::LastAck) {
        rig.peer(ACK | FIN, b"");
        rig.sent();
    }
    if !matches!(state, State::Established | State::CloseWait) {
        // Draining has the application close the connection.
        rig.engine.drain(rig.now, &mut rig.wire);
        let fin = rig.one();
        assert!(fin.is(ACK | FIN), "{fin:?}");
        if matches!(state, State::FinWait2 | State::TimeWait) {
            rig.acknowledge(&fin);
        }
    }
    if matches!(state, State::Closing | State::TimeWait) {
        rig.peer(ACK | FIN, b"");
        rig.sent();
    }
    assert_eq!(rig.state(), Some(state));
    rig
}

fn shown(rig: &Rig) -> String {
    rig.state().unwrap_or(State::Closed).to_string()
}

#[test]
fn all_eleven_states_are_listed_by_their_names() {
    let rig = Rig::new(config(), App::default());
    let listener = rig.engine.connections().next().map(|info| info.state.to_string());
    assert_eq!(listener.as_deref(), Some("LISTEN"));

    let mut passive = Rig::new(config(), App::default());
    assert_eq!(shown(&passive), "CLOSED");
    passive.syn(Options::default());
    assert_eq!(shown(&passive), "SYN-RECEIVED");
    passive.ack = passive.one().seq + 1;
    passive.peer(ACK, b"");
    assert_eq!(shown(&passive), "ESTABLISHED");
    passive.peer(ACK | FIN, b"");
    assert_eq!(shown(&passive), "CLOSE-WAIT");
    passive.sent();
    passive.engine.drain(passive.now, &mut passive.wire);
    assert_eq!(shown(&passive), "LAST-ACK");
    let fin = passive.one();
    passive.acknowledge(&fin);
    assert_eq!(shown(&passive), "CLOSED");

    let mut active = Rig::new(config(), App::default());
    active.active_open();
    assert_eq!(shown(&active), "SYN-SENT");
    active.peer(SYN | ACK, b"");
    assert_eq!(shown(&active), "ESTABLISHED");
    active.sent();
    active.engine.drain(active.now, &mut active.wire);
    assert_eq!(shown(&active), "FIN-WAIT-1");
    let fin = active.one();
    active.acknowledge(&fin);
    assert_eq!(shown(&active), "FIN-WAIT-2");
    active.peer(ACK | FIN, b"");
    assert_eq!(shown(&active), "TIME-WAIT");
    active.pass(ms(60_000));
    assert_eq!(shown(&active), "CLOSED");

    assert_eq!(shown(&reach(State::Closing)), "CLOSING");
}

#[test]
fn the_exact_reset_ends_every_state_but_time_wait() {
    for state in STATES {
        let mut rig = reach(state);
        rig.peer(RST, b"");
        rig.nothing();
        if state == State::TimeWait {
            assert_eq!(rig.state(), Some(State::TimeWait));
            continue;
        }
        assert_eq!(rig.state(), None, "{state}");
        let told: &[CloseReason] = match state {
            State::SynReceived => &[],
            _ => &[CloseReason::ResetByPeer],
        };
        assert_eq!(rig.app().closed, told, "{state}");
        rig.assert_empty();
    }
}

#[test]
fn a_fin_that_comes_again_is_acknowledged_in_every_state_that_knows_it() {
    for state in [State::CloseWait, State::Closing, State::LastAck, State::TimeWait] {
        let mut rig = reach(state);
        rig.peer_at(rig.seq - 1, ACK | FIN, b"");
        let seq = rig.seq;
        assert!(
            rig.sent().iter().any(|segment| segment.is(ACK) && segment.ack == seq),
            "{state}"
        );
        assert_eq!(rig.state(), Some(state));
    }
}

#[test]
fn a_lost_fin_is_sent_again_from_every_state_that_waits_for_its_acknowledgment() {
    for state in [State::FinWait1, State::Closing, State::LastAck] {
        let mut rig = reach(state);
        assert!(rig.wait(ms(3000)).is_some(), "{state}");
        assert!(rig.sent().iter().any(|segment| segment.flags.contains(FIN)), "{state}");
        assert_eq!(rig.state(), Some(state));
    }
}

#[test]
fn no_blind_segment_changes_the_state_of_a_connection() {
    for state in STATES {
        let mut rig = reach(state);
        let ends = rig.app().ends;
        let (seq, ack) = (rig.seq, rig.ack);
        rig.peer_at(seq + 0x4000_0000, RST, b"");
        rig.peer_at(seq + 7, RST, b"");
        rig.peer_at(seq - 0x4000_0000, SYN, b"");
        rig.peer_at(seq + 0x4000_0000, ACK | FIN, b"forged");
        rig.ack = ack + 0x2000_0000;
        rig.peer_at(seq, ACK, b"forged");
        rig.peer_at(seq, ACK | FIN, b"");
        rig.ack = ack;
        assert_eq!(rig.state(), Some(state));
        assert!(rig.app().received.is_empty(), "{state}");
        assert_eq!(rig.app().ends, ends, "{state}");
        assert_eq!(rig.engine.reassembly_bytes(), 0, "{state}");
    }
}

#[test]
fn a_syn_is_challenged_in_every_state_whatever_its_timestamps() {
    // RFC 5961, section 4.2: a peer that has lost its state learns of the connection by the answer, and resets it.
    for state in STATES {
        for (stamp, kind) in [(None, "none"), (Some(900), "older"), (Some(1000), "equal")] {
            for distance in [7, 0x4000_0000, 0x8000_0000, 0xffff_0000] {
                let mut rig = reach_with(state, with_timestamps(1000));
                let seq = rig.seq;
                if state == State::TimeWait && distance <= 0x8000_0000 && stamp != Some(900) {
                    // It begins anew.
                    continue;
                }
                rig.timestamp = stamp;
                rig.peer_at(seq + distance, SYN, b"");
                let answer = rig.one();
                assert!(answer.is(ACK), "{state}, {kind}, {distance}: {answer:?}");
                assert_eq!(answer.ack, seq, "{state}, {kind}");
                assert_eq!(rig.state(), Some(state), "{state}, {kind}");
                // The restarted peer's answer, which has no timestamp (RFC 9293, section 3.5.1, figure 9).
                rig.timestamp = None;
                rig.peer_at(seq, RST, b"");
                assert_eq!(rig.state(), None, "{state}, {kind}");
            }
        }
    }
}

#[test]
fn the_challenges_of_syns_are_limited() {
    for stamp in [None, Some(900)] {
        let mut rig = reach_with(State::Established, with_timestamps(1000));
        rig.timestamp = stamp;
        for _ in 0..1000 {
            rig.peer_at(rig.seq, SYN, b"");
        }
        let limit = u64::from(config().challenge_ack_rate);
        assert_eq!(rig.sent().len() as u64, limit);
        assert_eq!(rig.count(Counter::ChallengeAcksLimited), 1000 - limit);
    }
}

#[test]
fn a_syn_without_timestamps_leaves_time_wait_alone_unless_its_number_is_higher() {
    let app = App {
        close_after_greeting: true,
        ..sender(5)
    };
    let mut rig = Rig::new(config(), app);
    rig.connect_with(with_timestamps(1000));
    let last = rig.one();
    rig.acknowledge(&last);
    rig.peer(ACK | FIN, b"");
    rig.sent();
    assert_eq!(rig.state(), Some(State::TimeWait));
    rig.timestamp = None;
    rig.peer_at(rig.seq - 7, SYN, b"");
    assert!(rig.one().is(ACK));
    assert_eq!(rig.state(), Some(State::TimeWait));
    rig.peer_at(rig.seq + 7, SYN, b"");
    assert!(rig.one().is(SYN | ACK));
    assert_eq!(rig.count(Counter::TimeWaitReused), 1);
}
