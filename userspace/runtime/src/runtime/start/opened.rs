//! The devices with a socket for each queue, and what their shards share.

use std::sync::Arc;

use mio::Poll;
use tidegate_exchange::Exchange;
use tidegate_xsk::Umems;

use super::checked::Checked;
use crate::affinity;
use crate::config::Config;
use crate::devices::Device;
use crate::drivers::BindPlan;
use crate::error::Error;
use crate::link_watch::Served;
use crate::links::Links;
use crate::mailbox::{Mailbox, waker};
use crate::port::Port;
use crate::report::QueueInfo;
use crate::runtime::Settings;
use crate::shard::{BELL, Shared};
use crate::shard_port::ShardPort as _;
use crate::xdp::Steering;

/// The devices, taken: a socket is bound to each queue.
pub(super) struct Opened {
    pub(super) ports: Vec<Port>,
    pub(super) infos: Vec<QueueInfo>,
    pub(super) links: Links,
    pub(super) plan: BindPlan,
}

impl Opened {
    pub(super) fn open(
        settings: &Settings<'_>,
        checked: &Checked,
        names: &[&str],
        steering: &Steering,
    ) -> Result<Self, Error> {
        let config = settings.afxdp;
        let Checked { devices, queues, .. } = checked;
        let plans = devices
            .iter()
            .zip(steering.attached_to())
            .map(|(device, attached)| BindPlan::new(config, settings.syn_cookies.mode, &device.interface, attached));
        let plans = plans.collect::<Result<Vec<_>, _>>()?;
        let Some(plan) = BindPlan::of_all(plans.iter().copied()) else {
            return Err(Error::Config("there is no interface to serve".to_owned()));
        };
        let mut ports = Vec::new();
        let mut infos = Vec::new();
        for queue in 0..*queues {
            let port = Port::open(names, queue, config, &plan, steering.attached())?;
            infos.push(QueueInfo {
                queue,
                cpu: affinity::cpu_of(queue as usize, &checked.cpus),
                zero_copy: port.zero_copy(),
                frames: config.frames,
            });
            ports.push(port);
        }
        let mtu = u32::from(checked.tcp.mtu);
        let max_mtus = infos.iter().map(|info| plan.max_mtu(info.zero_copy));
        let served = Served {
            queues: *queues,
            mtu,
            max_mtu: max_mtus.min().unwrap_or(mtu),
        };
        let links = Links::new(devices.iter().map(|device| (device, served)))?;
        for port in &mut ports {
            port.set_routes(links.routes());
        }
        Ok(Self {
            ports,
            infos,
            links,
            plan,
        })
    }
}

/// The interfaces above the devices, each with the number of the first device below it.
pub(super) fn first_devices(devices: &[Device]) -> Vec<(&str, u8)> {
    let mut first: Vec<(&str, u8)> = Vec::new();
    for (number, device) in (0..).zip(devices) {
        let name = device.bond.as_deref().unwrap_or(&device.interface.name);
        if first.iter().all(|(known, _)| *known != name) {
            first.push((name, number));
        }
    }
    first
}

/// Makes what the shards of these ports share with each other and `earlier` processes, and the epoll each sleeps in.
pub(super) fn share(ports: &[Port], earlier: u16, config: &Config) -> Result<(Shared, Vec<Poll>), Error> {
    let mut polls = Vec::new();
    let mut mailboxes = Vec::new();
    for _ in ports {
        let made = Poll::new().and_then(|poll| waker(&poll, BELL).map(|waker| (poll, waker)));
        let (poll, waker) = made.map_err(|error| Error::io("cannot make an epoll", error))?;
        polls.push(poll);
        mailboxes.push(Mailbox::new(waker));
    }
    let shared = Shared {
        memory: Arc::new(Umems::of(ports.iter().map(Port::socket))),
        exchange: Arc::new(Exchange::with_relayed(
            ports.len() as u16,
            earlier * ports.len() as u16,
            config.handover_queue as usize,
            config.frames as usize,
        )),
        mailboxes: mailboxes.into(),
    };
    Ok((shared, polls))
}
