//! Other settings for shards that run.

use core::any::Any;
use core::time::Duration;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam::channel;

use super::{ANSWER_TIMEOUT, Listener, Runtime};
use crate::config::Sources;
use crate::error::Error;
use crate::inspection::{ConnectionFilter, Walk};
use crate::interface::{Interface, check_listeners};
use crate::listeners::{AddressChange, REMOVED};
use crate::mailbox::{ApplicationChange, Command, Configuration, Mailbox, tell_all};

/// The time for which connections are looked at in one check, at most.
const LOOK_TIME: Duration = Duration::from_millis(20);

/// Addresses that are not served any more. What arrives for them is steered until the connections they have are over:
/// the kernel would answer it with RST.
#[derive(Debug, Default)]
pub(super) struct Retiring {
    addresses: VecDeque<SocketAddr>,
    /// Whether the first has connections, as far as is known.
    walk: Option<Walk>,
}

impl Retiring {
    pub(super) fn add(&mut self, addresses: &[SocketAddr]) {
        self.addresses.extend(addresses);
    }

    /// Forgets addresses that are served again, or that are the kernel's already.
    pub(super) fn forget(&mut self, addresses: &[SocketAddr]) {
        self.addresses.retain(|address| !addresses.contains(address));
        self.walk = None;
    }
}

/// Settings that change while a server runs.
#[derive(Clone, Copy, Debug)]
pub struct Reload<'a> {
    /// The interfaces, which are those it was started with.
    pub interfaces: &'a [String],
    /// The TCP engines, as far as [`set_config`](tidegate_tcp::engine::Engine::set_config) changes them.
    pub tcp: &'a tidegate_tcp::Config,
    /// The sources that are served. `prefix_v4`, `prefix_v6` and `remembered` stay as they were at the start. So does
    /// whether the XDP program counts SYNs by source: a `syn_rate` above 0 has no effect if it was 0 at the start.
    pub sources: &'a Sources,
    /// All listeners there ever were, by their [`ListenerId`](tidegate_tcp::application::ListenerId)s, and new ones
    /// behind them; `None`: it accepts no further connections, and those it has accepted go on. Its addresses are the
    /// kernel's when the last of them is over and all processes that this one took over from have ended.
    pub listeners: &'a [Option<Listener>],
}

impl Runtime {
    /// Works by other settings from now on. No connection is lost: a setting that changes counts for those there are,
    /// too, or for new ones only.
    ///
    /// `change` makes the change of the application of each shard, by its queue, which it is given before it has
    /// connections of new listeners. What that returns is dropped here, since it may take long. `A` is the type of the
    /// applications.
    ///
    /// # Errors
    ///
    /// As for [`start`](super::start()) where settings cannot be, [`Error::Config`] when another process has taken
    /// over, and [`Error::Load`] when the kernel refuses an entry of a map. Nothing has changed then. A shard that does
    /// not take the settings within a second is no error: that is logged, and it takes them when it goes on.
    pub fn reload<A, F, C>(&mut self, reload: &Reload<'_>, mut change: F) -> Result<(), Error>
    where
        A: 'static,
        F: FnMut(u32) -> C,
        C: FnOnce(&mut A) -> Box<dyn Any + Send> + Send + 'static,
    {
        if self.has_no_devices() {
            return Err(Error::Config(
                "another server has taken over from this one; reload that".to_owned(),
            ));
        }
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
        if let Some(change) = &changed {
            self.retiring.forget(&change.added);
            self.retiring.add(&change.removed);
        }
        let late = change_applications(&self.mailboxes, &self.threads, changes, ANSWER_TIMEOUT);
        if late > 0 {
            tracing::warn!(
                "{late} of {} shards have not taken the other settings within {ANSWER_TIMEOUT:?}; they serve by the \
                 settings before until they go on",
                self.mailboxes.len()
            );
        }
        self.configure(reload);
        Ok(())
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
        if let Err(error) = self.steer_addresses(&change.added) {
            undo(self);
            self.addresses.replace(before, addresses);
            return Err(error);
        }
        Ok(Some(change))
    }

    /// Steers what is for addresses that are new.
    fn steer_addresses(&mut self, added: &[SocketAddr]) -> Result<(), Error> {
        for (done, address) in added.iter().enumerate() {
            if let Err(error) = self.steering.add_listener(address) {
                self.leave_to_kernel(&added[..done]);
                return Err(error);
            }
        }
        Ok(())
    }

    fn leave_to_kernel(&mut self, addresses: &[SocketAddr]) {
        // Those that had been steered before are steered on.
        let retiring = &self.retiring.addresses;
        let new = addresses.iter().filter(|address| !retiring.contains(address));
        let new: Vec<SocketAddr> = new.copied().collect();
        if self.has_taken_over() {
            // They may have been before this process began.
            return self.retiring.add(&new);
        }
        for address in &new {
            let _ = self.steering.remove_listener(address);
        }
    }

    /// Leaves addresses to the kernel whose last connections are over.
    pub(super) fn check_retiring(&mut self) {
        // Processes before may have connections there, which are not listed here.
        if self.has_taken_over() {
            return;
        }
        let Some(&address) = self.retiring.addresses.front() else {
            return;
        };
        let walk = self.retiring.walk.take();
        let mut walk = walk.unwrap_or_else(|| {
            self.shards().walk(ConnectionFilter {
                local: Some(address),
                ..ConnectionFilter::default()
            })
        });
        let began = Instant::now();
        while began.elapsed() < LOOK_TIME {
            match walk.next_slice(false) {
                Ok(Some(slice)) if slice.states.total() == 0 => {}
                // It has some: now it is another's turn.
                Ok(Some(_)) => return self.retiring.addresses.rotate_left(1),
                Ok(None) => {
                    self.retiring.addresses.pop_front();
                    if let Err(error) = self.steering.remove_listener(&address) {
                        tracing::warn!("{address} cannot be left to the kernel: {error}");
                    }
                    return;
                }
                // A shard that does not answer is left to others.
                Err(_) => return,
            }
        }
        self.retiring.walk = Some(walk);
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
            congestion: reload
                .listeners
                .iter()
                .map(|listener| listener.and_then(|listener| listener.congestion))
                .collect(),
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

/// Has each shard change its application. Returns the number of those that have not done so within `timeout`.
fn change_applications<A, C, T>(
    mailboxes: &[Mailbox],
    threads: &[Option<JoinHandle<T>>],
    changes: Vec<C>,
    timeout: Duration,
) -> usize
where
    A: 'static,
    C: FnOnce(&mut A) -> Box<dyn Any + Send> + Send + 'static,
{
    let (taken, is_taken) = channel::bounded(mailboxes.len());
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
        tell_all(&mailboxes[index..=index], &threads[index..=index], command, timeout);
    }
    let deadline = Instant::now() + timeout;
    let in_time = (0..mailboxes.len()).take_while(|_| is_taken.recv_deadline(deadline).is_ok());
    mailboxes.len() - in_time.count()
}

#[cfg(test)]
mod tests {
    use mio::{Poll, Token};

    use super::*;
    use crate::mailbox::waker;

    #[test]
    fn a_shard_that_takes_no_settings_in_time_is_counted_and_takes_them_later() {
        let polls = [0, 1].map(|_| Poll::new().expect("an epoll"));
        let mailboxes = polls
            .each_ref()
            .map(|poll| Mailbox::new(waker(poll, Token(0)).expect("an eventfd")));
        let change = |mailbox: &Mailbox, application: &mut u32| match mailbox.take() {
            Some(Command::Application { change, taken }) => drop(taken.send(change.make(application))),
            _ => panic!("it was told to change"),
        };
        let add = |more: u32| {
            move |application: &mut u32| {
                *application += more;
                Box::new(()) as Box<dyn Any + Send>
            }
        };
        let threads: [Option<JoinHandle<()>>; 2] = [0, 1].map(|_| Some(std::thread::spawn(std::thread::park)));
        let mut applications = [10, 20];
        let late = std::thread::scope(|scope| {
            let changing = scope.spawn(|| {
                let timeout = Duration::from_millis(300);
                change_applications(&mailboxes, &threads, vec![add(1), add(2)], timeout)
            });
            while mailboxes[1].is_empty() {
                std::thread::yield_now();
            }
            change(&mailboxes[1], &mut applications[1]);
            changing.join().expect("it ends")
        });
        assert_eq!((late, applications), (1, [10, 22]));
        change(&mailboxes[0], &mut applications[0]);
        assert_eq!(applications, [11, 22]);
        for thread in threads.into_iter().flatten() {
            thread.thread().unpark();
            thread.join().expect("it was parked");
        }
    }
}
