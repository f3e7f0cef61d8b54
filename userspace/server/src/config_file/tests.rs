//! Files as they are read, and errors as they are told.

use super::*;

/// The settings, without the place they come from.
pub(super) fn settings(file: ConfigFile) -> String {
    let file = ConfigFile {
        origins: Origins::default(),
        ..file
    };
    format!("{file:?}")
}

#[test]
fn an_empty_file_is_all_defaults() {
    let file = parse("", "t.toml").unwrap();
    assert_eq!(settings(file), settings(ConfigFile::default()));
}

#[test]
fn keys_are_taken() {
    let text = "iface = \"eth1\"\nlisten = [\"http=198.18.0.1:80\",\n  \"echo=[2001:2::1]:7\"]\n\
                root = \"/srv\"\ndrain = \"1m\"\n[afxdp]\nqueues = 2\nspin = \"10us\"\n[tcp]\nmsl = \"1s\"\n";
    let file = parse(text, "t.toml").unwrap();
    assert_eq!(file.iface, ["eth1"]);
    assert_eq!(file.listen.len(), 2);
    assert_eq!(file.root.as_deref(), Some(Path::new("/srv")));
    assert_eq!(file.drain, Duration::from_secs(60));
    assert_eq!(file.afxdp.queues, Some(2));
    assert_eq!(file.afxdp.spin, Duration::from_micros(10));
    assert_eq!(file.tcp.msl, Duration::from_secs(1));
}

#[test]
fn errors_name_file_line_column_and_key() {
    for (text, place, phrase) in [
        (
            "ifcae = \"x\"\n",
            "1:1: key `ifcae`: unknown field `ifcae`; ",
            "did you mean `iface`? Expected one of `iface`, `listen`",
        ),
        ("\n[afxpd]\n", "2:2: table [afxpd]: ", "did you mean `afxdp`?"),
        (
            "[afxdp]\n\nqueus = 2\n",
            "3:1: key `afxdp.queus`: ",
            "did you mean `queues`?",
        ),
        (
            "workers = 2\n",
            "1:1: key `workers`: unknown field `workers`, ",
            "expected one of",
        ),
        ("afxdp.queus = 2\n", "1:7: key `afxdp.queus`: ", "unknown field"),
        ("afxdp = { queus = 2 }\n", "1:11: key `afxdp.queus`: ", "unknown field"),
        (
            "[afxdp]\n  frames = \"many\"\n",
            "2:3: key `afxdp.frames`: ",
            "invalid type",
        ),
        ("drain = \"soon\"\n", "1:1: key `drain`: ", ""),
        ("[tcp]\nmsl = 30\n", "2:1: key `tcp.msl`: ", "invalid type"),
        ("afxdp = 1\n", "1:1: key `afxdp`: ", "invalid type"),
        (
            "listen = [\n  \"http=1.2.3.4:80\",\n  \"http=127.0.0.1:80\",\n]\n",
            "3:3: key `listen`: ",
            "loopback",
        ),
        (
            "iface = \"x\"\nlisten = [\"http=1.2.3.4:80\", \"echo=1.2.3.4:80\"]\n",
            "2:1: key `listen`: ",
            "same address",
        ),
        ("[tcp]\nmsl = \"1s\"\nmtu = 100\n", "3:1: key `tcp.mtu`: ", "576"),
        ("tcp.mtu = 100\n", "1:5: key `tcp.mtu`: ", "576"),
        ("[tcp] # mtu = 5\nmtu = 100\n", "2:1: key `tcp.mtu`: ", "576"),
        ("[afxdp]\nwait = \"doze\"\n", "2:1: key `afxdp.wait`: ", "adaptive"),
        (
            "[afxdp]\nwait = \"busypoll\"\n",
            "2:1: key `afxdp.wait`: ",
            "did you mean `busy-poll`?",
        ),
        (
            "[sources]\ndeny = [\n  \"192.0.2.0/24\",\n  \"198.18.0.1/15\",\n]\n",
            "4:3: key `sources.deny`: ",
            "write 198.18.0.0/15",
        ),
        ("[http]\nroot = \"/srv\"\n", "2:1: key `http.root`: ", "top level"),
        ("[tcp\n", "1:5: ", "table"),
        ("drain = \"1s\"\ndrain = \"2s\"\n", "2:1: ", "duplicate"),
        ("[tcp]\nmtu = \n", "2:7: ", ""),
    ] {
        let error = parse(text, "t.toml").unwrap_err();
        assert!(error.starts_with(&format!("t.toml:{place}")), "{text}: {error}");
        assert!(error.contains(phrase), "{text}: {error}");
        assert!(!error.contains('\n'), "{text}: {error}");
    }
}

#[test]
fn of_several_keys_the_one_at_fault_is_named_or_the_one_that_is_set() {
    for (text, place, phrase) in [
        (
            "[tcp]\nkeepalive_probes = 0\n",
            "2:1: key `tcp.keepalive_probes`: ",
            "keepalive_probes is 0",
        ),
        (
            "[tcp]\nkeepalive_idle = \"1h\"\nkeepalive_interval = \"0s\"\n",
            "3:1: key `tcp.keepalive_interval`: ",
            "keepalive_idle",
        ),
        ("[tcp]\nmsl = \"0s\"\n", "2:1: key `tcp.msl`: ", "msl is 0ns"),
        (
            "[tcp]\nuser_timeout = \"0s\"\n",
            "2:1: key `tcp.user_timeout`: ",
            "above zero",
        ),
        (
            "[tcp]\nfin_wait_2 = \"0s\"\n",
            "2:1: key `tcp.fin_wait_2`: ",
            "above zero",
        ),
        (
            "[tcp]\nrto_max = \"100ms\"\n",
            "2:1: key `tcp.rto_max`: ",
            "rto_min is 200ms and rto_max 100ms",
        ),
        (
            "[tcp]\nrto_max = \"1s\"\nrto_min = \"2s\"\n",
            "3:1: key `tcp.rto_min`: ",
            "at most rto_max",
        ),
        (
            "[afxdp]\ntx_ring = 8192\n",
            "2:1: key `afxdp.tx_ring`: ",
            "completion_ring must be at least as large",
        ),
        (
            "[afxdp]\nframes = 1024\n",
            "2:1: key `afxdp.frames`: ",
            "control_reserve is 512",
        ),
        (
            "[afxdp]\nframes = 256\ncontrol_reserve = 16\nburst = 65\n",
            "4:1: key `afxdp.burst`: ",
            "a quarter of frames",
        ),
        (
            "[afxdp]\nhuge_pages = true\nframes = 256\ncontrol_reserve = 16\n",
            "2:1: key `afxdp.huge_pages`: ",
            "2 MiB",
        ),
        (
            "[sources]\nallow = [\"::/0\"]\ndeny = [\"::/0\"]\n",
            "3:1: key `sources.deny`: ",
            "so has allow",
        ),
        (
            "[tcp]\nreceive_buffer_initial = 8192\n",
            "2:1: key `tcp.receive_buffer_initial`: ",
            "max_head is 16384",
        ),
        (
            "[tcp]\nreceive_buffer = 8192\n",
            "2:1: key `tcp.receive_buffer`: ",
            "max_head is 16384",
        ),
        (
            "[http]\nmax_head = 131072\n",
            "2:1: key `http.max_head`: ",
            "tcp.receive_buffer_initial, which is 65536",
        ),
        (
            "[http]\nmax_head = 4096\n",
            "2:1: key `http.max_head`: ",
            "max_uri is 8192",
        ),
        (
            "listen = [\"http=1.2.3.4:80\"]\n[tcp]\nkeepalive_idle = \"0s\"\nkeepalive_probes = 0\n\
             [listener.\"http=1.2.3.4:80\"]\nkeepalive_idle = \"1s\"\n",
            "6:1: key `listener.\"http=1.2.3.4:80\".keepalive_idle`: ",
            "keepalive_probes is 0",
        ),
        (
            "listen = [\"http=1.2.3.4:80\"]\n[listener.\"http=1.2.3.4:80\"]\nkeepalive_probes = 0\n",
            "3:1: key `listener.\"http=1.2.3.4:80\".keepalive_probes`: ",
            "above zero",
        ),
        (
            "listen = [\"http=1.2.3.4:80\"]\n[listener.\"http=1.2.3.4:81\"]\n",
            "2:11: table [listener.\"http=1.2.3.4:81\"]: ",
            "not in `listen`",
        ),
    ] {
        let error = parse(text, "t.toml").unwrap_err();
        assert!(error.starts_with(&format!("t.toml:{place}")), "{text}: {error}");
        assert!(error.contains(phrase), "{text}: {error}");
    }
}
