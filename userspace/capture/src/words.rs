//! Packets in words, as `tcpdump -n` prints them.

use core::fmt::Write as _;
use std::net::IpAddr;

use crate::packet::{Packet, TcpHeader};

/// Control bits and their letters, in tcpdump's order.
const FLAGS: [(u8, char); 8] = [
    (0x01, 'F'),
    (0x02, 'S'),
    (0x04, 'R'),
    (0x08, 'P'),
    (0x10, '.'),
    (0x20, 'U'),
    (0x40, 'E'),
    (0x80, 'W'),
];

const FIN_SYN_RST: u8 = 0x07;
const ACK: u8 = 0x10;

/// The packet in a frame that begins with its Ethernet header, or that it is none.
pub fn packet(frame: &[u8]) -> String {
    let Some(packet) = Packet::of(frame) else {
        return format!("not IP, length {}", frame.len());
    };
    let ip = if packet.is_ipv4() { "IP" } else { "IP6" };
    let (Some((source, destination)), Some(tcp)) = (packet.ends(), packet.tcp()) else {
        let payload = packet.payload();
        return format!(
            "{ip} {} > {}: protocol {}, length {}",
            packet.source(),
            packet.destination(),
            payload.protocol,
            payload.length
        );
    };
    format!(
        "{ip} {} > {}: {}",
        end(source.ip(), source.port()),
        end(destination.ip(), destination.port()),
        segment(&tcp)
    )
}

/// An address and port.
pub fn end(address: IpAddr, port: u16) -> String {
    format!("{address}.{port}")
}

fn segment(tcp: &TcpHeader) -> String {
    let mut text = String::from("Flags [");
    text.extend(
        FLAGS
            .iter()
            .filter(|(bit, _)| tcp.flags & bit != 0)
            .map(|&(_, letter)| letter),
    );
    text.push(']');
    // Writing to a string does not fail.
    let _ = if tcp.text > 0 {
        write!(text, ", seq {}:{}", tcp.seq, tcp.seq.wrapping_add(tcp.text as u32))
    } else if tcp.flags & FIN_SYN_RST != 0 {
        write!(text, ", seq {}", tcp.seq)
    } else {
        Ok(())
    };
    if tcp.flags & ACK != 0 {
        let _ = write!(text, ", ack {}", tcp.ack);
    }
    let _ = write!(text, ", win {}, length {}", tcp.window, tcp.text);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::tests::frame;

    #[test]
    fn a_segment_reads_as_in_tcpdump() {
        let with_text = "IP 198.18.0.1.40000 > 198.18.0.2.80: Flags [.], seq 1000:1004, ack 7, win 2000, length 4";
        assert_eq!(packet(&frame(b"text")), with_text);
        let without = "IP 198.18.0.1.40000 > 198.18.0.2.80: Flags [.], ack 7, win 2000, length 0";
        assert_eq!(packet(&frame(b"")), without);
        let header = TcpHeader {
            source_port: 1,
            destination_port: 2,
            seq: 5,
            ack: 0,
            flags: 0xc2,
            window: 9,
            text: 0,
        };
        assert_eq!(segment(&header), "Flags [SEW], seq 5, win 9, length 0");
        assert_eq!(packet(&[0; 60]), "not IP, length 60");
        let mut udp = frame(b"");
        udp[23] = 17;
        assert_eq!(packet(&udp), "IP 198.18.0.1 > 198.18.0.2: protocol 17, length 20");
    }
}
