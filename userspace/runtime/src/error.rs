//! The errors around the engine, each a sentence with a remedy.

use std::io;
use std::net::IpAddr;

use tidegate_tcp::config::InvalidSetting;
use tidegate_tcp::next_hops::NoNextHop;

use crate::xdp::{PresentProgram, Rejection, present_programs};

/// Why the runtime did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting is out of range, or contradicts another or the interface.
    #[error("{0}")]
    Config(String),
    /// A setting is out of range, or contradicts another one or the interface.
    #[error("{error}")]
    Setting {
        /// The table of the configuration file the setting belongs to.
        table: &'static str,
        /// The keys, as that table names them, and the sentence about them.
        error: InvalidSetting,
    },
    /// There is no interface of that name in this network namespace.
    #[error("there is no interface {name:?} here; there are: {}", list(.known))]
    NoSuchInterface {
        /// The name asked for.
        name: String,
        /// The interfaces there are.
        known: Vec<String>,
    },
    /// The interface exists, but `/sys` shows another network namespace.
    #[error(
        "/sys shows another network namespace than the one of interface {name}; \
         start tidegate with `ip netns exec NAMESPACE`, which mounts the right one"
    )]
    ForeignSysfs {
        /// The interface.
        name: String,
    },
    /// The interface is down.
    #[error("interface {name} is down; bring it up with `ip link set dev {name} up`")]
    InterfaceDown {
        /// The interface.
        name: String,
    },
    /// Packets have no Ethernet header on this interface.
    #[error(
        "interface {name} is not Ethernet (its type is {kind}), and its packets have no header that tidegate could \
         answer to; use an Ethernet interface, such as a tap device instead of a tun device"
    )]
    NotEthernet {
        /// The interface.
        name: String,
        /// The kind of link (`ARPHRD_*` of include/uapi/linux/if_arp.h).
        kind: u32,
    },
    /// The interface that was served exists no more.
    #[error(
        "interface {name} is gone: it was deleted, or moved to another network namespace; start tidegate again when \
         it is back, or set link_gone = \"wait\""
    )]
    LinkGone {
        /// The interface's last name.
        name: String,
    },
    /// Somebody detached the XDP program.
    #[error(
        "the XDP program of tidegate was detached from interface {name} by somebody else, so that nothing arrives any \
         more; start tidegate again"
    )]
    ProgramDetached {
        /// The interface.
        name: String,
    },
    /// The server that runs cannot be taken over from.
    #[error("cannot take over from the server at {path}: {reason}; it goes on serving")]
    TakeOver {
        /// Its socket.
        path: String,
        /// The reason, as a clause.
        reason: String,
    },
    /// The process that has taken over is gone.
    #[error("the process that took the interface over has ended, and with it the way of the connections that are left")]
    SuccessorGone,
    /// A privilege is missing.
    #[error(
        "not permitted: {what} needs {capability}; run as root, or give the binary what it needs: \
         setcap cap_bpf,cap_perfmon,cap_net_admin,cap_net_raw,cap_ipc_lock+ep PATH"
    )]
    NotPermitted {
        /// The action that failed.
        what: String,
        /// The capability that is missing.
        capability: &'static str,
    },
    /// The kernel has no AF_XDP.
    #[error(
        "this kernel has no AF_XDP sockets; it needs CONFIG_XDP_SOCKETS=y (check /boot/config-* or /proc/config.gz)"
    )]
    NoAfXdp,
    /// The UMEM is larger than what may be locked in memory.
    #[error(
        "a UMEM of {bytes} bytes per queue is more than may be locked in memory; raise the limit \
         (`ulimit -l unlimited`, LimitMEMLOCK=infinity in a unit file), give the binary CAP_IPC_LOCK, or set fewer \
         `frames`"
    )]
    Memlock {
        /// Size of one UMEM.
        bytes: u64,
    },
    /// There was no memory for the UMEM.
    #[error("no memory for a UMEM of {bytes} bytes per queue; {}", memory_remedy(*.huge_pages))]
    NoMemory {
        /// Size of one UMEM.
        bytes: u64,
        /// Whether huge pages were asked for.
        huge_pages: bool,
    },
    /// A listener's address is none of the interfaces'.
    #[error(
        "address {address} is not on interface {}, which has: {}; \
         add it with `ip address add {address}/PREFIX dev {}`",
        .names.join(" or "), list(.known), .names.join(" or ")
    )]
    AddressNotOnInterface {
        /// The listener's address.
        address: IpAddr,
        /// The interfaces, or the one.
        names: Vec<String>,
        /// The interfaces' addresses.
        known: Vec<IpAddr>,
    },
    /// A bond is to be served that has nothing to send and receive by.
    #[error("bond {name} has no slaves; give it some with `ip link set dev SLAVE down master {name}`")]
    NoSlaves {
        /// The bond.
        name: String,
    },
    /// Another XDP program is attached to the interface.
    #[error("interface {name} has an XDP program already attached{}", present(.name, .programs))]
    AlreadyAttached {
        /// The interface.
        name: String,
        /// Its programs, if the kernel tells them.
        programs: Vec<PresentProgram>,
    },
    /// The program could not be put among others on the interface.
    #[error("cannot run by a dispatcher of XDP programs on interface {name}: {reason}")]
    Dispatcher {
        /// The interface.
        name: String,
        /// The reason, as a sentence.
        reason: String,
    },
    /// More queues were asked for than the device has.
    #[error(
        "{asked} queues were asked for, but interface {name} has {has}; ask for at most {has}, \
         or give it more with `ethtool -L {name} combined {asked}`"
    )]
    TooManyQueues {
        /// The interface.
        name: String,
        /// The number that was asked for.
        asked: u32,
        /// The number there is.
        has: u32,
    },
    /// The driver refused the program, and only native mode was allowed.
    #[error("the driver of {name} refused native XDP ({reason}); use xdp_mode auto or generic{hint}")]
    NativeRefused {
        /// The interface.
        name: String,
        /// The kernel's error.
        reason: String,
        /// Possible causes, each as `; ` and a clause.
        hint: String,
    },
    /// The driver cannot do zero-copy, and it was required.
    #[error(
        "the driver of {name} refused zero-copy on queue {queue} ({reason}); use zero_copy = \"auto\" or \"never\""
    )]
    ZeroCopyRefused {
        /// The interface.
        name: String,
        /// The queue.
        queue: u32,
        /// The kernel's error.
        reason: String,
    },
    /// Another AF_XDP socket is bound to the queue.
    #[error("queue {queue} of {name} is in use by another AF_XDP socket; see which process has it with `ss --xdp -p`")]
    QueueBusy {
        /// The interface.
        name: String,
        /// The queue.
        queue: u32,
    },
    /// The kernel did not take the XDP program.
    #[error("cannot load the XDP program: {0}")]
    Load(String),
    /// The kernel's verifier did not take the XDP program.
    #[error(transparent)]
    Rejected(Rejection),
    /// Nothing can be sent to an address.
    #[error("cannot send to {target} by {name}: {reason}; {}", next_hop_remedy(*.reason, name, *.address))]
    NoNextHop {
        /// The address.
        target: IpAddr,
        /// The interface.
        name: String,
        /// The reason.
        reason: NoNextHop,
        /// The next hop's address, as far as it is known, or else `target`.
        address: IpAddr,
    },
    /// A shard has stopped.
    #[error("the shard of queue {queue} has failed: {what}")]
    Shard {
        /// The shard's queue.
        queue: u32,
        /// The event, as a sentence.
        what: String,
    },
    /// As many captures and traces run as may.
    #[error("{running} captures and traces run already; end one first, or set max_captures higher (table [control])")]
    TooManyCaptures {
        /// Those that run.
        running: usize,
    },
    /// A system call failed that has no sentence of its own.
    #[error("{what}: {source}")]
    Io {
        /// The action that failed.
        what: String,
        /// The kernel's error.
        source: io::Error,
    },
}

impl Error {
    /// Why the interface that was served is served no more, without the remedy, since it may be served again; `None`
    /// for every other error.
    pub fn lost_link(&self) -> Option<String> {
        match self {
            Self::LinkGone { name } => Some(format!("interface {name} is gone")),
            Self::ProgramDetached { name } => Some(format!("the XDP program was detached from interface {name}")),
            _ => None,
        }
    }

    /// Whether what was asked for is wrong by itself, so that trying again is of no use (exit code 2 rather than 1).
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Config(_) | Self::Setting { .. })
    }

    /// [`Error::AlreadyAttached`] with what is on `interface`.
    pub(crate) fn already_attached(interface: &str) -> Self {
        Self::AlreadyAttached {
            name: interface.to_owned(),
            programs: present_programs(interface).unwrap_or_default(),
        }
    }

    /// Returns a function that makes errors of `table` one of these.
    pub(crate) fn in_table(table: &'static str) -> impl FnOnce(InvalidSetting) -> Self {
        move |error| Self::Setting { table, error }
    }

    pub(crate) fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io {
            what: what.into(),
            source,
        }
    }
}

/// An error with all its causes, as one line.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    line
}

fn memory_remedy(huge_pages: bool) -> &'static str {
    if huge_pages {
        "reserve huge pages (sysctl vm.nr_hugepages) or set huge_pages = false"
    } else {
        "set fewer `frames`"
    }
}

fn next_hop_remedy(reason: NoNextHop, name: &str, address: IpAddr) -> String {
    match reason {
        NoNextHop::NoRoute => {
            format!(
                "give {name} an address of the same network, or a route with `ip route add {address} dev {name} via`"
            )
        }
        NoNextHop::OtherInterface => format!("see which with `ip route get {address}`"),
        NoNextHop::Unresolved => format!("see `ip neigh show {address} dev {name}`"),
    }
}

/// The programs that an interface has, and the ways to be rid of them.
fn present(interface: &str, programs: &[PresentProgram]) -> String {
    if programs.is_empty() {
        return format!("; see which with `ip link show dev {interface}`, and stop its owner");
    }
    let sentences = programs
        .iter()
        .map(|program| format!(": {program}; {}", program.remedy(interface)));
    sentences.collect()
}

fn list<T: ToString>(items: &[T]) -> String {
    if items.is_empty() {
        return "none".to_owned();
    }
    let items: Vec<String> = items.iter().map(T::to_string).collect();
    items.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_name_what_there_is_and_what_to_do() {
        let error = Error::NoSuchInterface {
            name: "eth9".to_owned(),
            known: vec!["eth0".to_owned(), "lo".to_owned()],
        };
        assert_eq!(
            error.to_string(),
            "there is no interface \"eth9\" here; there are: eth0, lo"
        );
        let error = Error::AddressNotOnInterface {
            address: IpAddr::from([198, 18, 0, 9]),
            names: vec!["tgs0".to_owned()],
            known: Vec::new(),
        };
        assert_eq!(
            error.to_string(),
            "address 198.18.0.9 is not on interface tgs0, which has: none; \
             add it with `ip address add 198.18.0.9/PREFIX dev tgs0`"
        );
        let error = Error::TooManyQueues {
            name: "tgs0".to_owned(),
            asked: 4,
            has: 2,
        };
        assert!(error.to_string().contains("ethtool -L tgs0 combined 4"));
        let error = Error::NoMemory {
            bytes: 1,
            huge_pages: true,
        };
        assert!(error.to_string().contains("vm.nr_hugepages"));
    }

    #[test]
    fn no_sentence_has_a_line_break_or_a_double_space() {
        let name = || "eth0".to_owned();
        let errors = [
            Error::ForeignSysfs { name: name() },
            Error::InterfaceDown { name: name() },
            Error::NotEthernet {
                name: name(),
                kind: 65534,
            },
            Error::LinkGone { name: name() },
            Error::ProgramDetached { name: name() },
            Error::NotPermitted {
                what: "binding".to_owned(),
                capability: "CAP_NET_RAW",
            },
            Error::NoSlaves { name: name() },
            Error::NoAfXdp,
            Error::Memlock { bytes: 1 },
            Error::NoMemory {
                bytes: 1,
                huge_pages: false,
            },
            Error::AlreadyAttached {
                name: name(),
                programs: Vec::new(),
            },
            Error::Dispatcher {
                name: name(),
                reason: "no".to_owned(),
            },
            Error::NativeRefused {
                name: name(),
                reason: "no".to_owned(),
                hint: String::new(),
            },
            Error::ZeroCopyRefused {
                name: name(),
                queue: 0,
                reason: "no".to_owned(),
            },
            Error::QueueBusy { name: name(), queue: 0 },
        ];
        for error in errors {
            let sentence = error.to_string();
            assert!(!sentence.contains('\n') && !sentence.contains("  "), "{sentence}");
        }
    }

    #[test]
    fn only_a_wrong_setting_is_a_usage_error() {
        assert!(Error::Config("frames is 3".to_owned()).is_usage());
        assert!(!Error::NoAfXdp.is_usage());
    }

    #[test]
    fn causes_are_appended_once() {
        let error = Error::io("cannot bind", io::Error::other("busy"));
        assert_eq!(with_causes(&error), "cannot bind: busy");
    }
}
