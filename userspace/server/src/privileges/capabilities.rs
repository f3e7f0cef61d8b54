//! Capabilities and the user.

use std::{fmt, io};

use rustix::process::{Gid, Uid, getgroups, getuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, set_capabilities, set_keep_capabilities,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};
use tidegate_runtime::{Attach, LinkGone};

use crate::settings::Settings;

/// Capabilities that serving takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Capabilities(CapabilitySet);

impl Capabilities {
    pub(super) const NONE: Self = Self(CapabilitySet::empty());

    /// Those of a server with `settings`, after it has started.
    pub(super) fn of(settings: &Settings) -> Self {
        let config = &settings.config;
        // The program attached anew for a driver that has stopped running it, neighbours told of, devices put back.
        let mut kept = CapabilitySet::NET_ADMIN;
        if config.afxdp.link_gone == LinkGone::Wait {
            // Everything is done again when the interface is back.
            kept |= CapabilitySet::BPF | CapabilitySet::PERFMON | CapabilitySet::NET_RAW | CapabilitySet::IPC_LOCK;
        }
        if config.afxdp.take_over.is_some() {
            // The queues are bound again if the server that takes them over fails.
            kept |= CapabilitySet::NET_RAW | CapabilitySet::IPC_LOCK;
        }
        if config.afxdp.attach == Attach::Dispatcher {
            // Leaving a dispatcher means to load another one.
            kept |= CapabilitySet::BPF | CapabilitySet::PERFMON | CapabilitySet::SYS_ADMIN;
        }
        if config.http.root.is_some() && config.privileges.user.is_none() {
            // Root goes on reading files that are their owner's alone.
            kept |= CapabilitySet::DAC_READ_SEARCH;
        }
        Self(kept)
    }

    /// Has the calling thread keep only these, as far as it has them, and become `identity`.
    pub(super) fn keep_only(self, identity: Option<(u32, u32)>) -> io::Result<()> {
        let kept = self.0 & capabilities(None)?.permitted;
        // A thread that is started by one that has become it is it already, and may change nothing any more.
        if let Some((user, group)) = identity
            && (getuid().as_raw() != user || !getgroups()?.is_empty())
        {
            // The last use of CAP_SETUID and CAP_SETGID. Each thread by itself: those before may have given them up.
            let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
            set_keep_capabilities(true)?;
            set_thread_groups(&[])?;
            set_thread_res_gid(group, group, group)?;
            set_thread_res_uid(user, user, user)?;
        }
        set_capabilities(
            None,
            CapabilitySets {
                effective: kept,
                permitted: kept,
                inheritable: CapabilitySet::empty(),
            },
        )?;
        clear_ambient_capability_set()?;
        Ok(())
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.0.iter_names().map(|(name, _)| name).collect();
        f.write_str(if names.is_empty() { "none" } else { "" })?;
        f.write_str(&names.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn as_many_are_kept_as_the_settings_take() {
        let mut settings = Settings::of_test();
        let kept = |settings: &Settings| Capabilities::of(settings).to_string();
        assert_eq!(kept(&settings), "NET_ADMIN");
        settings.config.http.root = Some("/srv/www".into());
        assert_eq!(kept(&settings), "DAC_READ_SEARCH NET_ADMIN");
        settings.config.privileges.user = Some("nobody".to_owned());
        assert_eq!(kept(&settings), "NET_ADMIN");
        settings.config.afxdp.link_gone = LinkGone::Wait;
        assert_eq!(kept(&settings), "NET_ADMIN NET_RAW IPC_LOCK PERFMON BPF");
        settings.config.afxdp.link_gone = LinkGone::Exit;
        settings.config.afxdp.take_over = Some("/run/take-over".into());
        assert_eq!(kept(&settings), "NET_ADMIN NET_RAW IPC_LOCK");
        settings.config.afxdp.take_over = None;
        settings.config.afxdp.attach = Attach::Dispatcher;
        assert_eq!(kept(&settings), "NET_ADMIN SYS_ADMIN PERFMON BPF");
        assert_eq!(Capabilities::NONE.to_string(), "none");
    }

    #[test]
    fn a_thread_keeps_no_other_and_cannot_get_it_back() {
        thread::spawn(|| {
            let before = capabilities(None).unwrap();
            Capabilities(CapabilitySet::NET_ADMIN).keep_only(None).unwrap();
            let after = capabilities(None).unwrap();
            assert_eq!(after.permitted, before.permitted & CapabilitySet::NET_ADMIN);
            assert_eq!(after.effective, after.permitted);
            if before.permitted.contains(CapabilitySet::NET_RAW) {
                set_capabilities(None, before).unwrap_err();
            }
        })
        .join()
        .unwrap();
    }
}
