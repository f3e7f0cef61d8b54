//! smoltcp with the same responses, for comparison.
//!
//! Every choice is the one that costs smoltcp least: responses are ready-made, nothing is delayed,
//! there is no congestion control, packets come without Ethernet headers, all frames of a burst are taken in before
//! the sockets are looked at, and a socket in TIME-WAIT listens again at once. Checksums are verified, as the engine
//! does.

use smoltcp::iface::{Config, Interface, PollIngressSingleResult, PollResult, SocketHandle, SocketSet};
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::socket::tcp::{self, State};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpCidr};

use crate::addresses::{PREFIX, SERVER};
use crate::driver::{START, served_response};
use crate::frames::{Burst, Frames};
use crate::server::Server;

const ETHERNET_HEADER: usize = 14;
const MTU: usize = 1500;

/// Bytes of each socket's receive buffer: several requests.
const RECEIVE_BUFFER: usize = 2048;

/// Bytes of each socket's send buffer: several responses.
const SEND_BUFFER: usize = 8192;

/// smoltcp with an HTTP server of its own: a socket for each connection.
pub struct SmoltcpServer {
    interface: Interface,
    sockets: SocketSet<'static>,
    handles: Vec<SocketHandle>,
    persistent_response: Vec<u8>,
    last_response: Vec<u8>,
    /// The buffer that requests are read into.
    request: Box<[u8; RECEIVE_BUFFER]>,
    /// Sockets that were closed and do not listen again.
    closing: usize,
}

impl SmoltcpServer {
    /// smoltcp with `connections` sockets that listen.
    ///
    /// # Panics
    ///
    /// If smoltcp refuses an address or to listen.
    pub fn new(connections: u32) -> Self {
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = 1;
        let (nothing, mut nowhere) = (Frames::with_capacity(0), Frames::with_capacity(0));
        let mut device = Device::new(nothing.all(), &mut nowhere);
        let mut interface = Interface::new(config, &mut device, instant(START));
        interface.update_ip_addrs(|addresses| {
            addresses
                .push(IpCidr::new(SERVER.ip().into(), PREFIX))
                .expect("smoltcp has room for an address");
        });
        let mut sockets = SocketSet::new(Vec::with_capacity(connections as usize));
        let handles = (0..connections).map(|_| sockets.add(listening_socket())).collect();
        Self {
            interface,
            sockets,
            handles,
            persistent_response: served_response(true),
            last_response: served_response(false),
            request: Box::new([0; RECEIVE_BUFFER]),
            closing: 0,
        }
    }

    /// Answers the requests that have arrived.
    fn serve(&mut self) {
        for &handle in &self.handles {
            let socket = self.sockets.get_mut::<tcp::Socket<'static>>(handle);
            if !socket.can_recv() {
                continue;
            }
            let length = socket
                .recv_slice(&mut self.request[..])
                .expect("a socket that can receive");
            let persistent = is_persistent(&self.request[..length]);
            let response = if persistent {
                &self.persistent_response
            } else {
                &self.last_response
            };
            let sent = socket.send_slice(response);
            assert_eq!(sent, Ok(response.len()), "smoltcp has no room for a response");
            if !persistent {
                socket.close();
                self.closing += 1;
            }
        }
    }

    /// Frees sockets of connections that are over.
    fn listen_again(&mut self) {
        if self.closing == 0 {
            return;
        }
        for &handle in &self.handles {
            let socket = self.sockets.get_mut::<tcp::Socket<'static>>(handle);
            if socket.state() == State::TimeWait {
                listen(socket);
                self.closing -= 1;
            }
        }
    }
}

/// Whether the connection stays open after this request, which is whole.
fn is_persistent(data: &[u8]) -> bool {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut request = httparse::Request::new(&mut headers);
    let status = request.parse(data).expect("clients send requests that can be read");
    assert_eq!(status, httparse::Status::Complete(data.len()), "a request in pieces");
    assert_eq!((request.method, request.path), (Some("GET"), Some("/")));
    !request
        .headers
        .iter()
        .any(|header| header.name.eq_ignore_ascii_case("connection") && header.value.eq_ignore_ascii_case(b"close"))
}

fn listening_socket() -> tcp::Socket<'static> {
    let mut socket = tcp::Socket::new(
        tcp::SocketBuffer::new(vec![0; RECEIVE_BUFFER]),
        tcp::SocketBuffer::new(vec![0; SEND_BUFFER]),
    );
    socket.set_ack_delay(None);
    socket.set_congestion_control(tcp::CongestionControl::None);
    listen(&mut socket);
    socket
}

fn listen(socket: &mut tcp::Socket<'static>) {
    socket.listen(SERVER).expect("a closed socket can listen");
}

fn instant(now: tidegate_tcp::time::Instant) -> Instant {
    Instant::from_micros_const(now.as_micros() as i64)
}

impl Server for SmoltcpServer {
    fn deliver(&mut self, now: tidegate_tcp::time::Instant, burst: Burst<'_>, out: &mut Frames) {
        let now = instant(now);
        let mut device = Device::new(burst, out);
        let (interface, sockets) = (&mut self.interface, &mut self.sockets);
        while interface.poll_ingress_single(now, &mut device, sockets) != PollIngressSingleResult::None {}
        self.serve();
        let (interface, sockets) = (&mut self.interface, &mut self.sockets);
        while interface.poll_egress(now, &mut device, sockets) != PollResult::None {}
        self.listen_again();
    }
}

/// A burst of frames as smoltcp's network device.
struct Device<'f> {
    arrived: Burst<'f>,
    next: usize,
    out: &'f mut Frames,
}

impl<'f> Device<'f> {
    fn new(arrived: Burst<'f>, out: &'f mut Frames) -> Self {
        Self { arrived, next: 0, out }
    }
}

impl phy::Device for Device<'_> {
    type RxToken<'a>
        = Packet<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = Room<'a>
    where
        Self: 'a;

    fn receive(&mut self, _: Instant) -> Option<(Packet<'_>, Room<'_>)> {
        if self.out.is_full() {
            return None;
        }
        let packet = self.arrived.get(self.next)?.get(ETHERNET_HEADER..)?;
        self.next += 1;
        Some((Packet(packet), Room(self.out)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Room<'_>> {
        (!self.out.is_full()).then_some(Room(self.out))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU;
        capabilities
    }
}

/// A packet for smoltcp.
struct Packet<'a>(&'a [u8]);

impl phy::RxToken for Packet<'_> {
    fn consume<R, F>(self, f: F) -> R
    where
        F: FnOnce(&[u8]) -> R,
    {
        f(self.0)
    }
}

/// Room for a packet from smoltcp.
struct Room<'a>(&'a mut Frames);

impl phy::TxToken for Room<'_> {
    fn consume<R, F>(self, length: usize, f: F) -> R
    where
        F: FnOnce(&mut [u8]) -> R,
    {
        let slot = self.0.slot().expect("a token is given only when there is a buffer");
        let result = f(&mut slot[ETHERNET_HEADER..ETHERNET_HEADER + length]);
        self.0.fill(ETHERNET_HEADER + length);
        result
    }
}
