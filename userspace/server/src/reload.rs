//! Another configuration for a server that runs (SIGHUP, `tidegate ctl reload`).
//!
//! All that can fail comes first: the file is read and checked, keys that cannot change are looked for, directories and
//! files are opened, and the XDP program is told, which is undone if the kernel refuses a part. Only then do shards,
//! services and logs change, which does not fail.

mod fixed;

use tidegate_runtime::{Listener, Reload};
use tidegate_tcp::config::InvalidSetting;
use tracing::warn;

use crate::drain::Drain;
use crate::failure::Failure;
use crate::kernel_listeners;
use crate::listen::Listen;
use crate::log;
use crate::main_loop::MainLoop;
use crate::privileges::{self, Access};
use crate::say;
use crate::serve::make_services;
use crate::service_counters::PublishingServices;
use crate::settings::Settings;

/// Reads the configuration file again, with the arguments over it, and serves by it from now on.
///
/// # Errors
///
/// A sentence, which begins with file, line and column where the file is at fault. Nothing has changed then.
pub(crate) fn reload(main: &mut MainLoop<'_>) -> Result<(), String> {
    let Some(serving) = main.serving.as_deref_mut() else {
        return Err("the interfaces are gone, and waited for; try again when they are back".to_owned());
    };
    if *main.drain != Drain::Off {
        return Err("the server drains, and will serve nothing more".to_owned());
    }
    let told = |failure: Failure| failure.to_string();
    let given = main.given.gather_again().map_err(told)?;
    if let Some((table, key)) = fixed::first_change(main.given, &given) {
        let message = format!("{key} cannot change while the server runs; to have this value it needs a restart");
        return Err(given.config.origins.locate(table, &InvalidSetting::new([key], message)));
    }
    check_reach(main.given, &given)?;
    let listeners = renumbered(&serving.listeners, &given.config.listen)?;
    let kinds = listeners.iter().map(|(listen, _)| listen.service).collect();
    let shards = serving.runtime.queues().len() as u32;
    let mut services = make_services(&given, kinds, shards, shards).map_err(told)?.into_iter();
    let prepared_log = main.access_log.prepare(&given.config.access_log).map_err(|failure| {
        let error = InvalidSetting::new(["path"], failure.to_string());
        given.config.origins.locate("access_log", &error)
    })?;
    let [mode_before, mode] = [&*main.given, &given].map(|settings| settings.config.syn_cookies.mode);
    let mode_now = serving.runtime.cookie_mode();
    if mode != mode_before {
        let result = serving.runtime.set_cookie_mode(mode);
        result.map_err(|error| error.to_string())?;
    }
    let numbered: Vec<_> = listeners.iter().map(|listener| numbered(listener, &given)).collect();
    let reload = Reload {
        interfaces: &given.interfaces,
        tcp: &given.config.tcp,
        sources: &given.config.sources,
        listeners: &numbered,
    };
    let access_log = &*main.access_log;
    let reloaded = serving.runtime.reload(&reload, |shard| {
        let mut services = services.next().expect("there are as many as shards");
        services.set_access_log(access_log.of_shard_by(&given.config.access_log, shard));
        // Boxed to be dropped by the caller: a cache may be large.
        move |application: &mut PublishingServices| Box::new(application.serve_as(services)) as Box<_>
    });
    if let Err(error) = reloaded {
        if mode != mode_before {
            let _ = serving.runtime.set_cookie_mode(mode_now);
        }
        return Err(told(Failure::of_start(error, &given.config.origins)));
    }
    main.access_log.adopt(prepared_log);
    if main.given.config.log.level != given.config.log.level {
        log::set_level(given.config.log.level);
    }
    let added = given
        .config
        .listen
        .iter()
        .filter(|listen| !main.given.config.listen.contains(listen));
    let added: Vec<Listen> = added.copied().collect();
    for finding in kernel_listeners::findings(&added) {
        warn!("{}", finding.sentence);
    }
    serving.listeners = listeners;
    let queues = main.settings.config.afxdp.queues;
    *main.settings = given.clone();
    main.settings.config.afxdp.queues = queues;
    *main.given = given;
    say("tidegate: reloaded\n");
    Ok(())
}

/// Checks that the server can still reach the files that `new` names: the root in any case, since it may have been
/// replaced by another folder of its name, and an access log that `old` has not, since one that it has stays open.
///
/// # Errors
///
/// A sentence with file, line and column.
fn check_reach(old: &Settings, new: &Settings) -> Result<(), String> {
    let config = &new.config;
    let log = config.access_log.path.as_ref();
    let new_log = log.filter(|_| log != old.config.access_log.path.as_ref());
    for (table, key, path, access) in [
        ("", "root", config.http.root.as_ref(), Access::Read),
        ("access_log", "path", new_log, Access::Write),
    ] {
        if let Some(objection) = path.and_then(|path| privileges::objection(path, access)) {
            return Err(config.origins.locate(table, &InvalidSetting::new([key], objection)));
        }
    }
    Ok(())
}

/// The listeners `before`, by number, and those of `wanted` that are new behind them, each with whether it is wanted.
///
/// # Errors
///
/// A sentence: there are no more numbers.
fn renumbered(before: &[(Listen, bool)], wanted: &[Listen]) -> Result<Vec<(Listen, bool)>, String> {
    let mut listeners: Vec<_> = before
        .iter()
        .map(|&(listen, _)| (listen, wanted.contains(&listen)))
        .collect();
    for &listen in wanted {
        if !before.iter().any(|&(known, _)| known == listen) {
            listeners.push((listen, true));
        }
    }
    if listeners.len() > usize::from(u16::MAX) {
        return Err(
            "there were 65,535 different listeners since the start; for others the server needs a restart".into(),
        );
    }
    Ok(listeners)
}

/// A listener as the runtime has it; `None`: it is not served any more.
fn numbered(&(listen, is_served): &(Listen, bool), settings: &Settings) -> Option<Listener> {
    let position = settings.config.listen.iter().position(|other| *other == listen)?;
    is_served.then(|| Listener {
        address: listen.address,
        keepalive: Some(settings.listeners[position].keepalive),
        congestion: settings.listeners[position].congestion,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_keep_their_numbers_when_others_come_and_go() {
        let listen = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Listen>>();
        let all = listen(&["http=198.18.0.1:80", "echo=198.18.0.1:7", "http=198.18.0.1:81"]);
        let before = [(all[0], true), (all[1], true)];
        let gone = renumbered(&before, &[all[2], all[1]]).unwrap();
        assert_eq!(gone, [(all[0], false), (all[1], true), (all[2], true)]);
        let back = renumbered(&gone, &[all[0]]).unwrap();
        assert_eq!(back, [(all[0], true), (all[1], false), (all[2], false)]);
        // Another service on the same address and port is another listener.
        let other = listen(&["discard=198.18.0.1:80"]);
        assert_eq!(renumbered(&back, &other).unwrap()[3], (other[0], true));
    }
}
