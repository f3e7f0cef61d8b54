//! Checks before anything is attached.

use std::net::{IpAddr, SocketAddr};

use tidegate_abi::MAX_REMOTES;
use tidegate_abi::flow_filter::FlowHasher;
use tidegate_tcp::config::InvalidSetting;
use tidegate_tcp::engine::syn_ack_of;

use crate::affinity;
use crate::capability;
use crate::config::{Attach, Config};
use crate::cookies::secret::Secret;
use crate::devices::{Device, check_sharing};
use crate::doctor;
use crate::drivers::max_mtu_in_one_buffer;
use crate::error::Error;
use crate::interface::{self, Interface, check_listeners};
use crate::listeners::ServedAddresses;
use crate::runtime::Settings;
use crate::take_over::MAX_SHARED_QUEUES;
use crate::xdp::ProgramSettings;

/// The settings, with everything checked that can be before anything is attached.
pub(super) struct Checked {
    pub(super) devices: Vec<Device>,
    /// As configured, with the smallest MTU of the interfaces.
    pub(super) tcp: tidegate_tcp::Config,
    pub(super) addresses: ServedAddresses,
    /// Of the interfaces.
    own_addresses: Vec<IpAddr>,
    pub(super) queues: u32,
    /// The CPUs to pin shards to, if they are to be.
    pub(super) cpus: Vec<usize>,
    pub(super) cookie_secret: Secret,
}

impl Checked {
    pub(super) fn new(settings: &Settings<'_>) -> Result<Self, Error> {
        let config = settings.afxdp;
        config.validate().map_err(Error::in_table("afxdp"))?;
        settings
            .syn_cookies
            .validate()
            .map_err(Error::in_table("syn_cookies"))?;
        settings.sources.validate().map_err(Error::in_table("sources"))?;
        settings.balancers.validate().map_err(Error::in_table("balancers"))?;
        settings.tcp.validate().map_err(Error::in_table("tcp"))?;
        let cookie_secret = Secret::load(settings.syn_cookies)?;
        let addresses: Vec<SocketAddr> = settings.listeners.iter().map(|listener| listener.address).collect();
        let interfaces = settings.interfaces.iter().map(|name| Interface::find(name));
        let interfaces = interfaces.collect::<Result<Vec<_>, _>>()?;
        let devices = Device::below(&interfaces)?;
        check_sharing(config, &devices)?;
        let mut tcp = settings.tcp.clone();
        let Some(smallest) = devices
            .iter()
            .map(|device| &device.interface)
            .min_by_key(|device| device.mtu)
        else {
            return Err(Error::Config("there is no interface to serve".to_owned()));
        };
        for device in &devices {
            config.validate_mtu(&device.interface.name, device.interface.mtu)?;
            settings
                .balancers
                .check_mtu(&device.interface.name, device.interface.mtu)?;
        }
        config.validate_devices(devices.len() as u32)?;
        tcp.mtu = smallest.mtu as u16;
        // What balancers' outer headers say of congestion goes with them (RFC 6040, section 4.2).
        tcp.ecn &= !settings.balancers.is_any();
        tcp.outer_headers = settings.balancers.outer_headers();
        // No key of the file is at fault here.
        tcp.validate()
            .map_err(|error| Error::Config(format!("interface {} cannot be served: {error}", smallest.name)))?;
        let anywhere = settings.balancers.is_any();
        check_listeners(&interfaces, &addresses, anywhere)?;
        let addresses = ServedAddresses::new(&interfaces, addresses, anywhere)?;
        check_remotes(settings.remotes)?;
        let queues = interface::queues(devices.iter().map(|device| &device.interface), config.queues)?;
        check_take_over(config, queues)?;
        capability::check(config.attach)?;
        for Device { interface, .. } in &devices {
            if config.multi_buffer(interface.mtu).is_some() {
                capability::check_multi_buffer(&interface.name, interface.mtu)?;
            }
        }
        let names = devices.iter().map(|device| device.interface.name.as_str());
        for finding in doctor::warnings(config, names, queues) {
            tracing::warn!("{}", finding.sentence);
        }
        let cpus = if config.pin_threads {
            affinity::allowed()?
        } else {
            Vec::new()
        };
        Ok(Self {
            own_addresses: interfaces
                .into_iter()
                .flat_map(|interface| interface.addresses)
                .collect(),
            devices,
            tcp,
            addresses,
            queues,
            cpus,
            cookie_secret,
        })
    }

    pub(super) fn program_settings<'a>(
        &'a self,
        settings: &Settings<'a>,
        listeners: &'a [SocketAddr],
        flow_hasher: FlowHasher,
    ) -> ProgramSettings<'a> {
        let config = settings.afxdp;
        ProgramSettings {
            listeners,
            remotes: settings.remotes,
            syn_ack: syn_ack_of(&self.tcp),
            flow_hasher,
            filter_for_rst_rate: config.flow_filter.then_some(self.tcp.rst_rate),
            sources: settings.sources,
            balancers: settings.balancers,
            own_addresses: &self.own_addresses,
            outlives: config.attach == Attach::Dispatcher,
            frags: self
                .devices
                .iter()
                .filter(|device| config.multi_buffer(device.interface.mtu).is_some())
                .map(|device| max_mtu_in_one_buffer(&device.interface))
                .min(),
        }
    }
}

/// Checks that another process could take over so many queues.
fn check_take_over(config: &Config, queues: u32) -> Result<(), Error> {
    if config.take_over.is_none() || queues <= MAX_SHARED_QUEUES {
        return Ok(());
    }
    let message = format!(
        "take_over is set, and {queues} queues are served; another process can take over {MAX_SHARED_QUEUES} at most: \
         leave it out, or set queues to {MAX_SHARED_QUEUES} or less"
    );
    Err(Error::in_table("afxdp")(InvalidSetting::new(
        ["take_over", "queues"],
        message,
    )))
}

/// Checks that the XDP program can steer by these.
fn check_remotes(remotes: &[SocketAddr]) -> Result<(), Error> {
    if remotes.len() > MAX_REMOTES as usize {
        return Err(Error::Config(format!(
            "{} remotes were given; there can be {MAX_REMOTES}",
            remotes.len()
        )));
    }
    match remotes.iter().find(|remote| remote.port() == 0) {
        Some(remote) => Err(Error::Config(format!(
            "remote {remote} has no port; give it one from 1 to 65535"
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remotes_have_ports_and_room_in_the_map() {
        let remote = |port| SocketAddr::from(([198, 18, 0, 1], port));
        let full: Vec<SocketAddr> = (1..=MAX_REMOTES as u16).map(remote).collect();
        for good in [&[][..], full.as_slice()] {
            check_remotes(good).expect("good remotes");
        }
        for (bad, phrase) in [
            (vec![remote(1), remote(0)], "198.18.0.1:0 has no port"),
            ([full.as_slice(), &[remote(99)]].concat(), "there can be 16"),
        ] {
            let error = check_remotes(&bad).expect_err(phrase);
            assert!(error.is_usage() && error.to_string().contains(phrase), "{error}");
        }
    }

    #[test]
    fn a_server_that_can_be_taken_over_has_half_of_the_shards_there_can_be() {
        let mut config = Config::default();
        check_take_over(&config, 64).expect("nobody can take over");
        config.take_over = Some("/run/take-over".into());
        check_take_over(&config, 32).expect("as many as there is room for");
        let error = check_take_over(&config, 33).expect_err("one more");
        assert!(error.is_usage() && error.to_string().contains("33 queues"), "{error}");
    }
}
