//! Other settings for shards that run.

use core::any::Any;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use crossbeam::channel;

use super::{ANSWER_TIMEOUT, Listener, Runtime};
use crate::config::Sources;
use crate::error::Error;
use crate::interface::{Interface, check_listeners};
use crate::listeners::{AddressChange, REMOVED};
use crate::mailbox::{ApplicationChange, Command, Configuration, tell_all};

/// Settings that change while a server runs.
#[derive(Clone, Copy, Debug)]
pub struct Reload<'a> {
    /// The interfaces, which are those it was started with.
    pub interfaces: &'a [String],
    /// The TCP engines, as far as [`set_config`](tidegate_tcp::engine::Engine::set_config) changes them.
    pub tcp: &'a tidegate_tcp::Config,
    /// The sources that are served. What a source is stays as it is, and without a limit of SYNs from the start none
    /// can be set.
    pub sources: &'a Sources,
    /// All listeners there ever were, by their [`ListenerId`](tidegate_tcp::application::ListenerId)s, and new ones
    /// behind them; `None`: it accepts no further connections, and those it has accepted go on.
    pub listeners: &'a [Option<Listener>],
}

impl Runtime {
    /// Works by other settings from now on. No connection is lost: what changes counts for those there are, too, or for
    /// new ones only.
    ///
    /// `change` makes the change of the application of each shard, by its queue, which it is given before it has
    /// connections of new listeners. What that returns is dropped here, since it may take long. `A` is the type of the
    /// applications.
    ///
    /// # Errors
    ///
    /// As for [`start`](super::start()) where settings cannot be, [`Error::Load`] when the kernel refuses an entry of a
    /// map, and [`Error::Shard`] when a shard does not take them within a second, though it will. In all but the last
    /// case nothing has changed.
    pub fn reload<A, F, C>(&mut self, reload: &Reload<'_>, mut change: F) -> Result<(), Error>
    where
        A: 'static,
        F: FnMut(u32) -> C,
        C: FnOnce(&mut A) -> Box<dyn Any + Send> + Send + 'static,
    {
        let addresses = self.check_reload(reload)?;
        let changes: Vec<_> = self.queues.iter().map(|info| change(info.queue)).collect();
        let changed = self.steer_anew(reload, &addresses)?;
        // From here on nothing fails.
        self.tcp = tidegate_tcp::Config {
            mtu: self.tcp.mtu,
            outer_headers: self.tcp.outer_headers,
            ecn: self.tcp.ecn,
            ..reload.tcp.clone()
        };
        self.sources = reload.sources.clone();
        for address in changed.iter().flat_map(|change| &change.removed) {
            tracing::info!("{address} is not served any more");
        }
        for address in changed.iter().flat_map(|change| &change.added) {
            tracing::info!("{address} is served from now on");
        }
        let applications = self.change_applications(changes);
        self.configure(reload);
        applications
    }

    /// Checks what can be wrong. Returns the addresses of the interfaces.
    fn check_reload(&self, reload: &Reload<'_>) -> Result<Vec<IpAddr>, Error> {
        reload.tcp.validate().map_err(Error::in_table("tcp"))?;
        reload.sources.validate().map_err(Error::in_table("sources"))?;
        let interfaces = reload.interfaces.iter().map(|name| Interface::find(name));
        let interfaces = interfaces.collect::<Result<Vec<_>, _>>()?;
        let listeners: Vec<SocketAddr> = reload
            .listeners
            .iter()
            .flatten()
            .map(|listener| listener.address)
            .collect();
        check_listeners(&interfaces, &listeners, self.anywhere)?;
        Ok(interfaces
            .into_iter()
            .flat_map(|interface| interface.addresses)
            .collect())
    }

    /// Has the XDP program steer by the new settings, or by the old ones if the kernel does not let it.
    fn steer_anew(&mut self, reload: &Reload<'_>, addresses: &[IpAddr]) -> Result<Option<AddressChange>, Error> {
        self.steering.replace_sources(&self.sources, reload.sources)?;
        let undo = |runtime: &mut Self| {
            let _ = runtime.steering.replace_sources(reload.sources, &runtime.sources);
            if runtime.has_flow_filter {
                let _ = runtime.steering.set_rst_rate(runtime.tcp.rst_rate);
            }
        };
        if self.has_flow_filter
            && let Err(error) = self.steering.set_rst_rate(reload.tcp.rst_rate)
        {
            undo(self);
            return Err(error);
        }
        let before = self.addresses.listeners().to_vec();
        let listeners = reload.listeners.iter();
        let listeners = listeners.map(|listener| listener.map_or(REMOVED, |listener| listener.address));
        let Some(change) = self.addresses.replace(listeners.collect(), addresses) else {
            return Ok(None);
        };
        if let Err(error) = self.steer_addresses(&change) {
            undo(self);
            self.addresses.replace(before, addresses);
            return Err(error);
        }
        Ok(Some(change))
    }

    /// Steers what is for other addresses, or nothing else than before.
    fn steer_addresses(&mut self, change: &AddressChange) -> Result<(), Error> {
        for (done, address) in change.added.iter().enumerate() {
            if let Err(error) = self.steering.add_listener(address) {
                self.leave_to_kernel(&change.added[..done]);
                return Err(error);
            }
        }
        for (done, address) in change.removed.iter().enumerate() {
            if let Err(error) = self.steering.remove_listener(address) {
                self.leave_to_kernel(&change.added);
                for address in &change.removed[..done] {
                    let _ = self.steering.add_listener(address);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    fn leave_to_kernel(&mut self, addresses: &[SocketAddr]) {
        for address in addresses {
            let _ = self.steering.remove_listener(address);
        }
    }

    /// Has each shard change its application.
    fn change_applications<A, C>(&self, changes: Vec<C>) -> Result<(), Error>
    where
        A: 'static,
        C: FnOnce(&mut A) -> Box<dyn Any + Send> + Send + 'static,
    {
        let (taken, is_taken) = channel::bounded(self.mailboxes.len());
        for (index, change) in changes.into_iter().enumerate() {
            let change = ApplicationChange::new(Box::new(move |application: &mut dyn Any| {
                match application.downcast_mut::<A>() {
                    Some(application) => change(application),
                    None => unreachable!("all applications of a runtime have one type"),
                }
            }));
            let command = || Command::Application {
                change: change.clone(),
                taken: taken.clone(),
            };
            let (mailbox, thread) = (&self.mailboxes[index..=index], &self.threads[index..=index]);
            tell_all(mailbox, thread, command, ANSWER_TIMEOUT);
        }
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        for info in &self.queues {
            is_taken.recv_deadline(deadline).map_err(|_| Error::Shard {
                queue: info.queue,
                what: "not all shards took other settings within a second".to_owned(),
            })?;
        }
        Ok(())
    }

    /// Has each engine work by the new settings.
    fn configure(&self, reload: &Reload<'_>) {
        let (taken, is_taken) = channel::bounded(self.mailboxes.len());
        let defaults = self.tcp.keepalive();
        let keepalive = reload
            .listeners
            .iter()
            .map(|listener| listener.and_then(|listener| listener.keepalive).unwrap_or(defaults));
        let configuration = Arc::new(Configuration {
            tcp: self.tcp.clone(),
            source_limits: reload.sources.connection_limits(),
            keepalive: keepalive.collect(),
            addresses: self.addresses.served(),
        });
        let command = || Command::Configure {
            configuration: Arc::clone(&configuration),
            taken: taken.clone(),
        };
        tell_all(&self.mailboxes, &self.threads, command, ANSWER_TIMEOUT);
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        // A shard that does not answer drops SYNs to new listeners until it does.
        let _ = (0..self.mailboxes.len()).try_for_each(|_| is_taken.recv_deadline(deadline));
    }
}
