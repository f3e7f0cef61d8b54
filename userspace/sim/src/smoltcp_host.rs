//! A host that runs smoltcp: a TCP that shares no line with the engine.
//!
//! smoltcp gets IP packets without Ethernet headers, so it asks for no neighbours.

use core::cell::Cell;
use core::time::Duration;
use std::collections::VecDeque;
use std::net::SocketAddr;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::socket::tcp::{self, State};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpCidr};
use tidegate_tcp::seq::SeqNumber;
use tidegate_tcp::wire::{Flags, Segment};

use crate::host::{Clock, ClockStart, Host};
use crate::script::{Ending, Script};
use crate::segment::{ETHERNET_HEADER, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Endpoint};

/// After so much silence from the peer the connection is given up, as smoltcp's own time-out would do; that one would
/// also count as a running timer and so hide that no other is.
const TIMEOUT: Duration = Duration::from_secs(900);

/// The time for which smoltcp may have something outstanding and no timer running, in case an answer is already under
/// way. Its largest retransmission timeout is 60 s.
const STALLED_AFTER: Duration = Duration::from_secs(60);

/// The time for which smoltcp may send only what lies beyond the last acknowledgment. It goes on so for ever if a
/// window that closes finds something of what it has sent lost: it probes behind that, and never sends it again, though
/// the window is open.
const SKIPS_FOR: Duration = Duration::from_secs(180);

/// The time after which smoltcp is asked again if it says that it has something to do now, and does not do it.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(1);

thread_local! {
    /// smoltcp's timestamp clock; it wants a function without arguments.
    static TIMESTAMP: Cell<u32> = const { Cell::new(0) };
}

fn timestamp() -> u32 {
    TIMESTAMP.get()
}

/// The settings of smoltcp.
#[derive(Clone, Debug)]
pub struct SmoltcpSettings {
    /// MTU of its interface in bytes, without the Ethernet header.
    pub mtu: u16,
    /// Receive buffer in bytes; above 65,535 it scales its window.
    pub receive_buffer: usize,
    /// Send buffer in bytes.
    pub send_buffer: usize,
    /// The delay of its acknowledgments; `None`: not at all.
    pub delayed_ack: Option<Duration>,
    /// Nagle's algorithm.
    pub nagle: bool,
    /// Timestamps.
    pub timestamps: bool,
    /// Reno congestion control; otherwise none at all.
    pub reno: bool,
    /// The seed its initial sequence number is drawn from.
    pub seed: u64,
}

/// smoltcp with one socket and its application.
pub struct SmoltcpHost {
    device: Device,
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    script: Script,
    clock: Clock,
    local: SocketAddr,
    remote: SocketAddr,
    last_state: State,
    heard_at: Duration,
    stalled_since: Option<Duration>,
    /// The time it was last given: what is due then and not done needs some other event first.
    worked_at: Option<Duration>,
    /// Taken out of the socket and not read by the application.
    rest: Vec<u8>,
    frames_in: u64,
    skipping: Skipping,
    /// SEG.SEQ of the peer's SYN.
    peer_isn: Option<SeqNumber>,
    outbox: Vec<Vec<u8>>,
}

/// Whether smoltcp leaves out what its peer waits for.
#[derive(Default)]
struct Skipping {
    /// The number the peer waits for, and whether its window is open.
    acknowledged: Option<(SeqNumber, bool)>,
    /// Since when nothing but what lies beyond has been sent.
    since: Option<Duration>,
}

impl Skipping {
    fn received(&mut self, frame: &[u8]) {
        if let Ok(segment) = Segment::parse(frame, true)
            && segment.flags.contains(Flags::ACK)
        {
            let acknowledged = Some((segment.ack, segment.window > 0));
            if self.acknowledged != acknowledged {
                self.acknowledged = acknowledged;
                self.since = None;
            }
        }
    }

    fn sent(&mut self, frame: &[u8], now: Duration) {
        if let Some((ack, open)) = self.acknowledged
            && let Ok(segment) = Segment::parse(frame, false)
            && !segment.payload.is_empty()
        {
            let beyond = open && segment.seq.after(ack);
            self.since = if beyond { self.since.or(Some(now)) } else { None };
        }
    }
}

impl SmoltcpHost {
    /// smoltcp at `local`, whose peer is `remote`; it `listens`, or will be told to connect.
    ///
    /// # Errors
    ///
    /// smoltcp's reason not to listen, in words.
    pub fn new(
        settings: &SmoltcpSettings,
        start: ClockStart,
        script: Script,
        (local, remote): (Endpoint, Endpoint),
        listens: bool,
    ) -> Result<Self, String> {
        let clock = Clock::new(match start {
            ClockStart::At(micros) => micros,
            ClockStart::IsnWrap(_) => 0,
        });
        let mut device = Device::new(settings.mtu, local, remote);
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = settings.seed;
        let mut interface = Interface::new(config, &mut device, instant(clock, Duration::ZERO));
        let prefix = if local.address.is_ipv4() { 24 } else { 64 };
        let mut full = false;
        interface.update_ip_addrs(|addresses| {
            full = addresses.push(IpCidr::new(local.address.ip().into(), prefix)).is_err();
        });
        if full {
            return Err("smoltcp takes no address".to_owned());
        }
        let mut socket = tcp::Socket::new(
            tcp::SocketBuffer::new(vec![0; settings.receive_buffer]),
            tcp::SocketBuffer::new(vec![0; settings.send_buffer]),
        );
        socket.set_nagle_enabled(settings.nagle);
        socket.set_ack_delay(settings.delayed_ack.map(Into::into));
        if settings.timestamps {
            socket.set_tsval_generator(Some(timestamp));
        }
        if settings.reno {
            socket.set_congestion_control(tcp::CongestionControl::Reno);
        }
        if listens {
            socket.listen(local.address).map_err(|error| error.to_string())?;
        }
        let mut sockets = SocketSet::new(Vec::new());
        let handle = sockets.add(socket);
        Ok(Self {
            device,
            interface,
            sockets,
            handle,
            script,
            clock,
            local: local.address,
            remote: remote.address,
            last_state: State::Closed,
            heard_at: Duration::ZERO,
            stalled_since: None,
            worked_at: None,
            rest: Vec::new(),
            frames_in: 0,
            skipping: Skipping::default(),
            peer_isn: None,
            outbox: Vec::new(),
        })
    }

    fn socket(&self) -> &tcp::Socket<'static> {
        self.sockets.get(self.handle)
    }

    /// Lets smoltcp and the application work until neither has anything to do.
    fn work(&mut self, now: Duration) {
        let at = instant(self.clock, now);
        self.worked_at = Some(now);
        TIMESTAMP.set((self.clock.micros(now) / 1000) as u32);
        loop {
            self.interface.poll(at, &mut self.device, &mut self.sockets);
            if !self.proceed(now) {
                break;
            }
        }
        for frame in self.device.sent.drain(..) {
            self.skipping.sent(&frame, now);
            self.outbox.push(frame);
        }
        let timer = self.interface.poll_at(at, &self.sockets);
        self.stalled_since = match self.stalled_since {
            _ if timer.is_some() || !self.is_something_outstanding() => None,
            None => Some(now),
            since => since,
        };
    }

    /// Does what the script wants done; true when smoltcp may have something to do because of it.
    fn proceed(&mut self, now: Duration) -> bool {
        let socket = self.sockets.get_mut::<tcp::Socket<'static>>(self.handle);
        let script = &mut self.script;
        let mut busy = false;
        let synchronized = !matches!(
            socket.state(),
            State::Closed | State::Listen | State::SynSent | State::SynReceived
        );
        if synchronized && script.opened() == 0 {
            script.open();
            busy = true;
        }
        // smoltcp empties its receive buffer when it reaches CLOSED, whether the application has read it or not.
        if matches!(socket.state(), State::LastAck | State::Closing | State::TimeWait) {
            while socket.can_recv() {
                let rest = &mut self.rest;
                let moved = socket.recv(|data| {
                    rest.extend_from_slice(data);
                    (data.len(), data.len())
                });
                if moved.unwrap_or(0) == 0 {
                    break;
                }
            }
        }
        if script.is_open() {
            busy |= exchange(socket, script, &mut self.rest, now);
        }
        // What was received before the end can still be read, however long the application pauses.
        if script.is_open() && socket.state() == State::Closed && self.rest.is_empty() {
            // smoltcp does not tell why; these are the states before CLOSED in which nothing can be missing.
            let finished = matches!(self.last_state, State::TimeWait | State::LastAck) && socket.send_queue() == 0;
            if finished && !script.peer_ended() {
                script.end_of_stream();
            }
            script.close(if finished { Ending::Finished } else { Ending::Reset });
        }
        if socket.state() != State::Closed {
            self.last_state = socket.state();
        }
        busy
    }

    /// Whether smoltcp has received the peer's FIN.
    fn has_peer_closed(&self) -> bool {
        matches!(
            self.socket().state(),
            State::CloseWait | State::LastAck | State::Closing | State::TimeWait
        )
    }

    /// Whether text of the peer is missing before `segment`'s FIN, which was taken. smoltcp cuts off what lies beyond
    /// its window, which a window scale makes it take back by an octet or some, but takes the FIN behind that.
    fn lacks_text_before(&self, segment: &Segment<'_>) -> bool {
        let has = self.script.received() + self.rest.len() + self.socket().recv_queue();
        let end = segment.seq + segment.payload.len() as u32;
        self.peer_isn.is_some_and(|isn| end - (isn + 1) > has as u32)
    }

    /// Whether smoltcp waits for an acknowledgment, or has something to send.
    fn is_something_outstanding(&self) -> bool {
        let socket = self.socket();
        match socket.state() {
            State::SynSent | State::SynReceived | State::FinWait1 | State::Closing | State::LastAck => true,
            State::Established | State::CloseWait => socket.send_queue() > 0,
            State::Closed | State::Listen | State::FinWait2 | State::TimeWait => false,
        }
    }

    fn gives_up_at(&self) -> Option<Duration> {
        let waits = !matches!(self.socket().state(), State::Closed | State::Listen | State::TimeWait);
        waits.then(|| self.heard_at + TIMEOUT)
    }

    fn give_up(&mut self, ending: Ending) {
        self.sockets.get_mut::<tcp::Socket<'static>>(self.handle).abort();
        if self.script.is_open() {
            self.script.close(ending);
        }
    }
}

fn instant(clock: Clock, now: Duration) -> Instant {
    Instant::from_micros_const(clock.micros(now) as i64)
}

impl Host for SmoltcpHost {
    fn connect(&mut self, now: Duration) -> Result<(), String> {
        let socket = self.sockets.get_mut::<tcp::Socket<'static>>(self.handle);
        socket
            .connect(self.interface.context(), self.remote, self.local)
            .map_err(|error| error.to_string())?;
        self.heard_at = now;
        self.work(now);
        Ok(())
    }

    fn receive(&mut self, now: Duration, frame: &[u8]) {
        self.frames_in += 1;
        if let Some(packet) = frame.get(ETHERNET_HEADER..) {
            self.heard_at = now;
            self.skipping.received(frame);
            self.device.arrived.push_back(packet.to_vec());
        }
        let segment = Segment::parse(frame, true).ok();
        if let Some(segment) = segment.as_ref().filter(|segment| segment.flags.contains(Flags::SYN)) {
            self.peer_isn = Some(segment.seq);
        }
        let open = !self.has_peer_closed();
        self.work(now);
        if open && self.has_peer_closed() && segment.is_some_and(|segment| self.lacks_text_before(&segment)) {
            self.give_up(Ending::Stalled);
            self.work(now);
        }
    }

    fn turn(&mut self, now: Duration) {
        let past = |since: Option<Duration>, limit: Duration| since.is_some_and(|since| now >= since + limit);
        if past(self.stalled_since, STALLED_AFTER) || past(self.skipping.since, SKIPS_FOR) {
            self.give_up(Ending::Stalled);
        } else if self.gives_up_at().is_some_and(|at| now >= at) {
            self.give_up(Ending::TimedOut);
        }
        self.work(now);
    }

    fn next_deadline(&mut self, now: Duration) -> Option<Duration> {
        let at = instant(self.clock, now);
        let timer = self.interface.poll_at(at, &self.sockets).map(|timer| {
            if timer > at {
                self.clock.since_start(timer.total_micros() as u64)
            } else if self.worked_at == Some(now) {
                now + ASK_AGAIN_AFTER
            } else {
                now
            }
        });
        let stalled = self.stalled_since.map(|since| since + STALLED_AFTER);
        [timer, stalled, self.gives_up_at(), self.script.wakes_at(now)]
            .into_iter()
            .flatten()
            .min()
    }

    fn outbox(&mut self) -> &mut Vec<Vec<u8>> {
        &mut self.outbox
    }

    fn script(&self) -> &Script {
        &self.script
    }

    fn check_empty(&self) -> Result<(), String> {
        match self.socket().state() {
            State::Closed | State::Listen => Ok(()),
            state => Err(format!("smoltcp is in {state}")),
        }
    }

    fn frames(&self) -> (u64, u64) {
        (self.frames_in, self.device.frames_out)
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

/// Frames smoltcp may send at one time. In rare states (a FIN between duplicate acknowledgments) it does not stop by
/// itself.
const ROOM: usize = 1024;

/// Queues between smoltcp and the link.
struct Device {
    mtu: usize,
    header: [u8; ETHERNET_HEADER],
    arrived: VecDeque<Vec<u8>>,
    sent: Vec<Vec<u8>>,
    frames_out: u64,
}

impl Device {
    fn new(mtu: u16, local: Endpoint, remote: Endpoint) -> Self {
        let mut header = [0; ETHERNET_HEADER];
        header[..6].copy_from_slice(&remote.mac);
        header[6..12].copy_from_slice(&local.mac);
        let ethertype = if local.address.is_ipv4() {
            ETHERTYPE_IPV4
        } else {
            ETHERTYPE_IPV6
        };
        header[12..].copy_from_slice(&ethertype.to_be_bytes());
        Self {
            mtu: usize::from(mtu),
            header,
            arrived: VecDeque::new(),
            sent: Vec::new(),
            frames_out: 0,
        }
    }
}

impl phy::Device for Device {
    type RxToken<'a> = Arrived;
    type TxToken<'a> = Room<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Arrived, Room<'_>)> {
        let packet = self.arrived.pop_front()?;
        Some((Arrived(packet), Room(self)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Room<'_>> {
        (self.sent.len() < ROOM).then_some(Room(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities
    }
}

/// A packet for smoltcp.
struct Arrived(Vec<u8>);

impl phy::RxToken for Arrived {
    fn consume<R, F>(self, f: F) -> R
    where
        F: FnOnce(&[u8]) -> R,
    {
        f(&self.0)
    }
}

/// Room for a packet from smoltcp.
struct Room<'a>(&'a mut Device);

impl phy::TxToken for Room<'_> {
    fn consume<R, F>(self, length: usize, f: F) -> R
    where
        F: FnOnce(&mut [u8]) -> R,
    {
        let mut frame = vec![0; ETHERNET_HEADER + length];
        frame[..ETHERNET_HEADER].copy_from_slice(&self.0.header);
        let result = f(&mut frame[ETHERNET_HEADER..]);
        self.0.sent.push(frame);
        self.0.frames_out += 1;
        result
    }
}

/// Reads and writes what the script wants; true when smoltcp may have something to do because of it. `rest` is what was
/// received and not read.
fn exchange(socket: &mut tcp::Socket<'static>, script: &mut Script, rest: &mut Vec<u8>, now: Duration) -> bool {
    let mut busy = false;
    while !rest.is_empty() {
        let count = script.read(now, rest);
        rest.drain(..count);
        if count == 0 {
            break;
        }
        busy = true;
    }
    while socket.can_recv() {
        let read = socket.recv(|data| {
            let count = script.read(now, data);
            (count, count)
        });
        if read.unwrap_or(0) == 0 {
            break;
        }
        busy = true;
    }
    if !script.peer_ended() && rest.is_empty() && socket.recv(|_| (0, ())) == Err(tcp::RecvError::Finished) {
        script.end_of_stream();
        busy = true;
    }
    while socket.can_send()
        && let Some(piece) = script.next_write(now, socket.send_capacity() - socket.send_queue())
    {
        let count = socket.send_slice(&piece).unwrap_or(0);
        if count == 0 {
            break;
        }
        script.wrote(now, count);
        busy = true;
    }
    if script.takes_abort() {
        socket.abort();
        script.close(Ending::Aborted);
        busy = true;
    } else if script.takes_close() {
        socket.close();
        busy = true;
    }
    busy
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::script::{Pause, Plan};
    use crate::segment::{ACK, Draft, FIN, RST, SYN, View};

    const NOW: Duration = Duration::from_secs(1);

    /// A FIN behind `text` octets, of which smoltcp has room for 96. What it answers, and how it ends.
    fn fin_behind(text: usize) -> (Vec<Vec<u8>>, Option<Ending>) {
        let end = |number: u8| Endpoint {
            mac: [2, 0, 0, 0, 0, number],
            address: format!("198.18.0.{number}:7").parse().unwrap(),
        };
        let (local, remote) = (end(1), end(2));
        let settings = SmoltcpSettings {
            mtu: 1500,
            receive_buffer: 4096,
            send_buffer: 4096,
            delayed_ack: None,
            nagle: false,
            timestamps: false,
            reno: false,
            seed: 1,
        };
        let mut plan = Plan::simple(Bytes::from_static(b"text"), vec![7; 4000 + text].into());
        plan.pauses = vec![Pause {
            after: 0,
            lasts: Duration::from_secs(9),
        }];
        let script = Script::new(plan);
        let mut host = SmoltcpHost::new(&settings, ClockStart::At(0), script, (local, remote), true).unwrap();
        let send = |host: &mut SmoltcpHost, seq, ack, flags, text: &[u8]| {
            let draft = Draft {
                from: remote,
                to: local,
                seq,
                ack,
                flags,
                window: 4096,
                options: b"",
                text,
            };
            host.receive(NOW, &draft.frame());
            core::mem::take(host.outbox())
        };
        let syn_ack = send(&mut host, 100, 0, SYN, b"");
        let ack = View::read(&syn_ack[0]).unwrap().seq.wrapping_add(1);
        send(&mut host, 101, ack, ACK, b"");
        let mut seq = 101;
        for _ in 0..4 {
            send(&mut host, seq, ack, ACK, &[7; 1000]);
            seq += 1000;
        }
        let answers = send(&mut host, seq, ack, ACK | FIN, &vec![7; text]);
        assert!(!answers.is_empty());
        (answers, host.script.ending())
    }

    #[test]
    fn a_fin_that_smoltcp_takes_without_all_of_its_text_is_the_end() {
        let (answers, ending) = fin_behind(100);
        assert_eq!(ending, Some(Ending::Stalled));
        assert!(answers.iter().any(|frame| View::read(frame).unwrap().has(RST)));
    }

    #[test]
    fn a_fin_whose_text_fits_the_window_is_not() {
        for text in [0, 96] {
            let (answers, ending) = fin_behind(text);
            assert_eq!(ending, None, "{text}");
            assert!(answers.iter().all(|frame| !View::read(frame).unwrap().has(RST)));
            let acknowledged = answers.iter().map(|frame| View::read(frame).unwrap().ack).next_back();
            assert_eq!(acknowledged, Some(101 + 4000 + text as u32 + 1));
        }
    }
}
