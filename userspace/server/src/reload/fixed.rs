//! Keys that cannot change while the server runs.

use crate::access_log::AccessLogConfig;
use crate::config_file::ConfigFile;
use crate::log::LogConfig;
use crate::settings::Settings;

/// Compares the keys of a table. Each has to be in one of the lists, or this does not compile.
macro_rules! changed {
    ($table:literal, $old:expr, $new:expr, $type:path, fixed [$($fixed:ident)*], live [$($live:ident)*]) => {{
        let $type { $($fixed: _,)* $($live: _,)* } = $old;
        let keys: &[(bool, &'static str)] = &[$(($old.$fixed != $new.$fixed, stringify!($fixed))),*];
        keys.iter().find(|(differs, _)| *differs).map(|&(_, key)| ($table, key))
    }};
}

/// The first key, with its table, that is another in `new` and cannot change.
pub(super) fn first_change(old: &Settings, new: &Settings) -> Option<(&'static str, &'static str)> {
    if old.interfaces != new.interfaces {
        return Some(("", "iface"));
    }
    let (old, new) = (&old.config, &new.config);
    // `iface` is in the interfaces, and `root` in `http`. Tables are compared below.
    let top = changed!("", old, new, ConfigFile, fixed [admin admin_connections admin_hosts privileges], live [
        iface listen listener root drain log access_log afxdp tcp syn_cookies sources balancers control http echo
        discard origins
    ]);
    top.or_else(|| log_or_access_log(old, new))
        .or_else(|| afxdp(&old.afxdp, &new.afxdp))
        .or_else(|| tcp(&old.tcp, &new.tcp))
        .or_else(|| syn_cookies(&old.syn_cookies, &new.syn_cookies))
        .or_else(|| sources(&old.sources, &new.sources))
        .or_else(|| {
            use tidegate_runtime::Balancers;
            let (old, new) = (&old.balancers, &new.balancers);
            changed!("balancers", old, new, Balancers, fixed [from gue_port], live [])
        })
        .or_else(|| {
            use crate::control::Config;
            changed!("control", &old.control, &new.control, Config, fixed [path owner max_clients], live [
                max_captures capture_ring
            ])
        })
}

fn log_or_access_log(old: &ConfigFile, new: &ConfigFile) -> Option<(&'static str, &'static str)> {
    let AccessLogConfig {
        path: _,
        format: _,
        sample: _,
        queue: _,
        max_field: _,
    } = &new.access_log;
    changed!("log", &old.log, &new.log, LogConfig, fixed[format], live[level])
}

fn afxdp(old: &tidegate_runtime::Config, new: &tidegate_runtime::Config) -> Option<(&'static str, &'static str)> {
    use tidegate_runtime::Config;
    changed!("afxdp", old, new, Config, fixed [
        queues xdp_mode attach priority wait spin busy_poll_budget busy_poll frames frame_size fill_ring
        completion_ring rx_ring tx_ring control_reserve handover_queue huge_pages pin_threads zero_copy burst
        flow_filter next_hop neighbour_rate take_over take_over_limit take_over_preparation
        take_over_timeout
    ], live [link_gone])
}

fn tcp(old: &tidegate_tcp::Config, new: &tidegate_tcp::Config) -> Option<(&'static str, &'static str)> {
    use tidegate_tcp::Config;
    // `mtu` is the interface's, and `outer_headers` the balancers'.
    changed!("tcp", old, new, Config, fixed [
        max_connections max_half_open max_time_wait receive_buffer receive_buffer_initial ecn loss_detection path_memory
    ], live [
        mtu outer_headers send_buffer max_outstanding_segments send_bytes_total receive_bytes_total reassembly_bytes
        reassembly_ranges reassembly_bytes_total verify_checksums rto_min rto_max syn_ack_retries user_timeout
        min_send_progress delayed_ack nagle msl fin_wait_2 keepalive_idle keepalive_interval keepalive_probes congestion
        bbr_loss_threshold path_mtu_discovery min_path_mtu black_hole_timeouts path_mtu_raise path_memory_age
        path_memory_ssthresh rst_rate challenge_ack_rate
    ])
}

fn syn_cookies(
    old: &tidegate_runtime::SynCookies,
    new: &tidegate_runtime::SynCookies,
) -> Option<(&'static str, &'static str)> {
    use tidegate_runtime::SynCookies;
    changed!("syn_cookies", old, new, SynCookies, fixed [
        on_syn_rate on_half_open on_bad_cookies off_after rotate key_file
    ], live [mode])
}

fn sources(old: &tidegate_runtime::Sources, new: &tidegate_runtime::Sources) -> Option<(&'static str, &'static str)> {
    use tidegate_runtime::Sources;
    // The table of sources that the limit takes is made at the start, if there is a limit. After a reload that has
    // given the limit up it is not known here whether there is one, so that it takes a restart to have a limit again.
    if old.syn_rate == 0 && new.syn_rate != 0 {
        return Some(("sources", "syn_rate"));
    }
    changed!("sources", old, new, Sources, fixed [prefix_v4 prefix_v6 remembered], live [
        allow deny syn_rate syn_burst max_connections connection_rate connection_burst
    ])
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::arguments::ServeArguments;

    /// The settings of a file with this text.
    fn settings(text: &str) -> Settings {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("t.toml");
        fs::write(
            &path,
            format!("iface = \"eth1\"\nlisten = [\"http=198.18.0.1:80\"]\n{text}"),
        )
        .unwrap();
        Settings::gather(&ServeArguments {
            config: Some(path),
            ..ServeArguments::default()
        })
        .unwrap_or_else(|failure| panic!("{failure}"))
    }

    #[test]
    fn keys_that_need_a_restart_are_found_and_others_are_not() {
        let change = |old: &str, new: &str| first_change(&settings(old), &settings(new));
        for (text, key) in [
            ("[log]\nformat = \"json\"", ("log", "format")),
            (
                "[afxdp]\nframes = 1024\ncontrol_reserve = 16\nburst = 16",
                ("afxdp", "frames"),
            ),
            ("[tcp]\nmax_connections = 7", ("tcp", "max_connections")),
            ("[tcp]\npath_memory = 7", ("tcp", "path_memory")),
            ("[syn_cookies]\nrotate = \"60s\"", ("syn_cookies", "rotate")),
            ("[sources]\nsyn_rate = 7", ("sources", "syn_rate")),
            ("[sources]\nprefix_v6 = 48", ("sources", "prefix_v6")),
            ("[balancers]\ngue_port = 7", ("balancers", "gue_port")),
            ("[control]\npath = \"/run/a\"", ("control", "path")),
            ("[control]\nmax_clients = 7", ("control", "max_clients")),
        ] {
            assert_eq!(change("", text), Some(key), "{text}");
        }
        for text in [
            "drain = \"7s\"",
            "root = \"/\"",
            "[log]\nlevel = \"info\"",
            "[access_log]\npath = \"/a\"\nqueue = 8",
            "[afxdp]\nlink_gone = \"wait\"",
            "[tcp]\nmsl = \"1s\"\nrst_rate = 7",
            "[syn_cookies]\nmode = \"always\"",
            "[sources]\ndeny = [\"192.0.2.0/24\"]\nmax_connections = 7",
            "[http]\nmax_head = 8192",
            "[control]\nmax_captures = 0\ncapture_ring = 65536",
        ] {
            assert_eq!(change("", text), None, "{text}");
        }
        // A limit can change, and be given up; it takes a restart to have one again.
        assert_eq!(change("[sources]\nsyn_rate = 7", "[sources]\nsyn_rate = 9"), None);
        assert_eq!(change("[sources]\nsyn_rate = 7", ""), None);
    }
}
