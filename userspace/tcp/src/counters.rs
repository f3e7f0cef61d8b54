//! The engine's counters: one for every drop, with its reason, and one for every limit that was hit.

pub use tidegate_abi::define_counters;

define_counters! {
    /// The events that are counted, all since the engine was made. For people and metrics `tcp_` is put before the
    /// name.
    pub enum Counter {
        /// Frames given to the engine.
        FramesIn = "frames_in",
        /// Frames the engine sent.
        FramesOut = "frames_out",
        /// Segments that were the ones expected, and took the short way (header prediction).
        PredictedIn = "predicted_in",
        /// Payload bytes delivered to applications.
        BytesIn = "bytes_in",
        /// Payload bytes sent for the first time.
        BytesOut = "bytes_out",
        /// SYNs to a listener.
        SynsIn = "syns_in",
        /// Connections that reached ESTABLISHED from SYN-RECEIVED.
        PassiveOpens = "passive_opens",
        /// Connections whose SYN had been answered with a cookie (RFC 4987); they are also counted as those that
        /// reached ESTABLISHED from SYN-RECEIVED.
        CookieConnections = "cookie_connections",
        /// Segments that waited for the acknowledgment of their handshake's cookie, which they may have overtaken.
        EarlySegments = "early_segments",
        /// Connections that reached ESTABLISHED from SYN-SENT.
        ActiveOpens = "active_opens",
        /// Connections that ended with both FINs acknowledged.
        Finished = "finished",
        /// Connections ended by the peer's RST.
        ResetByPeer = "reset_by_peer",
        /// Connections this side ended with RST.
        Aborted = "aborted",
        /// Connections given up because the peer no longer answered or acknowledged less than `min_send_progress` in
        /// `user_timeout`, or because the application left what it had received unread for `user_timeout`.
        TimedOut = "timed_out",
        /// Those of them whose peer was there and acknowledged less than `min_send_progress` in `user_timeout`.
        TimedOutSlow = "timed_out_slow",
        /// Connections reset because a newer one took their place while `max_connections` were open.
        Evicted = "evicted",
        /// Those of them whose peer had made a complete request: the longest idle of the source that held most.
        EvictedIdle = "evicted_idle",
        /// Connections looked at to find the one that gives way: at most 8 for each segment
        /// that finishes a handshake.
        EvictionVisited = "eviction_visited",
        /// Half-open connections given up after their last SYN-ACK.
        HalfOpenTimedOut = "half_open_timed_out",
        /// Half-open connections ended by the peer's RST.
        HalfOpenReset = "half_open_reset",
        /// SYN-ACKs sent again.
        SynAckRetransmits = "syn_ack_retransmits",
        /// Retransmission timeouts.
        Timeouts = "timeouts",
        /// Fast recoveries begun.
        Recoveries = "recoveries",
        /// Retransmissions that turned out to be needless, and whose consequences were taken back (RFC 4015).
        SpuriousRetransmits = "spurious_retransmits",
        /// Those of them that were timeouts without timestamps to tell (F-RTO, RFC 5682).
        FrtoSpurious = "frto_spurious",
        /// Connections to a peer of which an earlier connection had left something (`path_memory`, RFC 9040).
        PathMemoryHits = "path_memory_hits",
        /// Tail loss probes sent (RFC 8985).
        TailProbes = "tail_probes",
        /// Times that new text waited because `max_outstanding_segments` were outstanding.
        OutstandingLimited = "outstanding_limited",
        /// Outstanding segments looked at to find out what acknowledgments and timers say of them.
        OutstandingVisited = "outstanding_visited",
        /// Acknowledgments that reported something received twice (RFC 2883).
        DsacksIn = "dsacks_in",
        /// Reductions of the congestion window because of ECE (RFC 3168).
        CongestionEchoes = "congestion_echoes",
        /// Packets received with a CE mark (RFC 3168).
        CongestionMarks = "congestion_marks",
        /// Segments sent again after a retransmission timeout, or because they were too big for the path.
        RtoRetransmits = "rto_retransmits",
        /// Segments sent again because acknowledgments showed them lost, or as a tail loss probe.
        FastRetransmits = "fast_retransmits",
        /// Window probes sent.
        WindowProbes = "window_probes",
        /// Keepalive probes sent.
        KeepaliveProbes = "keepalive_probes",
        /// Segments whose data was held out of order.
        OutOfOrder = "out_of_order",
        /// Segments that brought only data already received.
        Duplicates = "duplicates",
        /// Challenge ACKs sent (RFC 5961).
        ChallengeAcks = "challenge_acks",
        /// RSTs sent for segments that belong to no connection.
        RstsOut = "rsts_out",
        /// Connections in TIME-WAIT whose place was taken by a new SYN, or by the acknowledgment of a cookie (RFC
        /// 6191).
        TimeWaitReused = "time_wait_reused",
        /// Connections in TIME-WAIT ended by the RST of a peer that had sent a SYN and did not know them (RFC 5961,
        /// section 4.2).
        TimeWaitReset = "time_wait_reset",
        /// Dropped: not a TCP segment the engine can read (lengths that contradict each other, fragments, other
        /// protocols).
        DropMalformed = "drop_malformed",
        /// Dropped: IPv4 header or TCP checksum wrong.
        DropChecksum = "drop_checksum",
        /// Dropped: an IPv4 header with a source route (LSRR or SSRR), as Linux does unless told otherwise.
        DropSourceRoute = "drop_source_route",
        /// Dropped: not to the address and port of a listener or connection.
        DropNotListening = "drop_not_listening",
        /// Dropped: source address that cannot be answered (multicast, broadcast, unspecified, loopback, that of a
        /// listener, or port 0).
        DropBadSource = "drop_bad_source",
        /// Dropped: outside the receive window (RFC 9293, section 3.10.7.4, first check).
        DropOutOfWindow = "drop_out_of_window",
        /// Dropped: a timestamp older than the last one (RFC 7323, PAWS).
        DropPaws = "drop_paws",
        /// Always 0: segments without a timestamp are served although timestamps were negotiated (RFC 7323, section
        /// 3.2).
        DropNoTimestamp = "drop_no_timestamp",
        /// Dropped: no ACK flag where there has to be one: to a connection, or to a listener and neither SYN nor RST.
        DropNoAck = "drop_no_ack",
        /// Dropped: acknowledges data never sent, or too old (RFC 5961, section 5).
        DropBadAck = "drop_bad_ack",
        /// Dropped: flags that cannot stand together (SYN with FIN or RST).
        DropBadFlags = "drop_bad_flags",
        /// Dropped: a segment that belongs to no connection and may not be answered (RST, or over `rst_rate`).
        DropNoConnection = "drop_no_connection",
        /// Dropped: an acknowledgment that fits no connection and repeats no cookie of the last two epochs, while
        /// cookies are accepted; answered with RST within `rst_rate`.
        DropBadCookie = "drop_bad_cookie",
        /// Dropped: text before the acknowledgment of its handshake's cookie, which has led to no connection here in
        /// time; not answered, so that its sender tries again.
        DropEarly = "drop_early",
        /// Dropped: acknowledges a genuine cookie that belongs to another shard, which did not take it.
        DropCookieShard = "drop_cookie_shard",
        /// Dropped: acknowledges a genuine cookie that begins below what the connection in TIME-WAIT has sent (RFC
        /// 9293, section 3.6.1); answered with RST within `rst_rate`.
        DropCookieTimeWait = "drop_cookie_time_wait",
        /// Dropped: RST to a TIME-WAIT connection (RFC 1337).
        DropTimeWaitRst = "drop_time_wait_rst",
        /// Dropped: a SYN, or the acknowledgment of a SYN-ACK or a cookie, while the server is draining or resets what
        /// is left.
        DropDraining = "drop_draining",
        /// Dropped: a finished handshake while `max_connections` are open and none has to give way: each source holds
        /// about as many, and what was looked at is not idle.
        DropConnectionsFull = "drop_connections_full",
        /// Dropped and answered with RST: a finished handshake of a source that has `sources.max_connections` open.
        DropSourceConnections = "drop_source_connections",
        /// Dropped and answered with RST: a finished handshake of a source beyond its `sources.connection_rate`.
        DropSourceRate = "drop_source_rate",
        /// Half-open connections that gave way to newer ones (`max_half_open`).
        HalfOpenEvicted = "half_open_evicted",
        /// TIME-WAIT connections that gave way to newer ones (`max_time_wait`).
        TimeWaitEvicted = "time_wait_evicted",
        /// Out-of-order data dropped: `reassembly_bytes`, `reassembly_ranges`, `reassembly_bytes_total` or three
        /// quarters of `receive_bytes_total` reached.
        DropReassemblyFull = "drop_reassembly_full",
        /// Data dropped: beyond the receive buffer.
        DropReceiveBufferFull = "drop_receive_buffer_full",
        /// Data dropped, though within the window that was offered: `receive_bytes_total` reached. The peer sends it
        /// again.
        DropReceiveBytesTotal = "drop_receive_bytes_total",
        /// Data dropped: arrived after the application closed the connection.
        DropAfterClose = "drop_after_close",
        /// ICMP "too big" about a flow of this engine, or one that no shard knows.
        TooBigIn = "too_big_in",
        /// Times segments of a connection were made smaller because ICMP "too big" asked for it.
        PathMtuReduced = "path_mtu_reduced",
        /// Times segments of a connection were made smaller because long ones were not acknowledged
        /// (`black_hole_timeouts`).
        PathMtuBlackHoles = "path_mtu_black_holes",
        /// Dropped: ICMP "too big" that quotes nothing outstanding, or a packet no larger than the MTU it tells (RFC
        /// 5927).
        DropIcmpBadQuote = "drop_icmp_bad_quote",
        /// Dropped: ICMP "too big" about a flow that is no open connection.
        DropIcmpNoFlow = "drop_icmp_no_flow",
        /// Dropped: ICMP "too big" that tells an MTU below `min_path_mtu`, or below 1280 for IPv6.
        DropIcmpTooSmall = "drop_icmp_too_small",
        /// Dropped: too many different link headers (MAC addresses, VLANs) in use.
        DropLinkTableFull = "drop_link_table_full",
        /// Times a connection's segments took another way than before because routes or neighbours had changed
        /// (`next_hop`).
        NextHopChanged = "next_hop_changed",
        /// Look-ups of a next hop (`next_hop`) to whose address no route leads; what they were for went back to where
        /// the peer's segments came from.
        NextHopNoRoute = "next_hop_no_route",
        /// The same, where the route leaves by another interface.
        NextHopOtherInterface = "next_hop_other_interface",
        /// The same, where the next hop's link-layer address is not known, or not yet.
        NextHopUnresolved = "next_hop_unresolved",
        /// The same, for connections only, where too many different link headers are in use.
        NextHopTableFull = "next_hop_table_full",
        /// Challenge ACKs and answers to out-of-window segments not sent: over `challenge_ack_rate`, or, where there is
        /// no connection, `rst_rate`.
        ChallengeAcksLimited = "challenge_acks_limited",
        /// Frames that could not be sent at once because no buffer was free; sent later where they still mattered.
        NoFrame = "no_frame",
    }

    /// The values of all counters of one engine.
    pub struct Counters;
}
