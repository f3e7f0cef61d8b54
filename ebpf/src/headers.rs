//! Lengths, offsets and numbers of the headers, as the RFCs give them.

/// Octets of an IPv4 header without options.
pub const IPV4_HEADER: usize = 20;
/// Octets of an IPv6 header.
pub const IPV6_HEADER: usize = 40;
/// Octets of a TCP header without options.
pub const TCP_HEADER: usize = 20;

/// Offset of the source address in an IPv4 header.
pub const IPV4_SOURCE: usize = 12;
/// Offset of the source address in an IPv6 header.
pub const IPV6_SOURCE: usize = 8;

/// Protocol numbers (IPv4) and next-header values (IPv6), as IANA assigns them.
pub mod protocol {
    pub const HOP_BY_HOP: u8 = 0;
    pub const ICMPV4: u8 = 1;
    pub const IPV4: u8 = 4;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const IPV6: u8 = 41;
    pub const ROUTING: u8 = 43;
    pub const FRAGMENT: u8 = 44;
    pub const ENCAPSULATING_SECURITY_PAYLOAD: u8 = 50;
    pub const AUTHENTICATION: u8 = 51;
    pub const ICMPV6: u8 = 58;
    pub const DESTINATION_OPTIONS: u8 = 60;
    pub const MOBILITY: u8 = 135;
    pub const HOST_IDENTITY: u8 = 139;
    pub const SHIM6: u8 = 140;
    /// Two values for experiments (RFC 3692), on IANA's list of extension headers.
    pub const EXPERIMENT_1: u8 = 253;
    pub const EXPERIMENT_2: u8 = 254;
}
