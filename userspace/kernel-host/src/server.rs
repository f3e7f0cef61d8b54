//! The threads of the server: started together, stopped together.

use std::io;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use anyhow::{Context, bail};
use mio::Waker;
use tidegate_tcp::application::Application;

use crate::host::Host;
use crate::listener;

/// A running server.
pub struct Server {
    addresses: Vec<SocketAddr>,
    threads: Vec<Thread>,
}

struct Thread {
    handle: JoinHandle<anyhow::Result<()>>,
    waker: Waker,
}

impl Server {
    /// Listens on `addresses`, and starts a thread for each of `applications`, the first bound to the first of `cpus`
    /// and so on. When it returns, all threads serve. `report` is told once by each thread of what keeps it from
    /// serving some connection, such as a lack of descriptors.
    ///
    /// # Errors
    ///
    /// A sentence: an address cannot be listened on, a CPU not be used, or the kernel refuses something else.
    pub fn start<A>(
        addresses: &[SocketAddr],
        cpus: &[usize],
        applications: Vec<A>,
        report: fn(&io::Error),
    ) -> anyhow::Result<Self>
    where
        A: Application + Send + 'static,
        A::Connection: Send,
    {
        let mut addresses = addresses.to_vec();
        let shared = applications.len() > 1;
        if shared {
            addresses.iter().copied().try_for_each(listener::check_free)?;
        }
        let mut hosts = Vec::with_capacity(applications.len());
        for application in applications {
            let mut sockets = Vec::with_capacity(addresses.len());
            for address in &mut addresses {
                let socket = listener::open(*address, shared)?;
                // Where the kernel chose the port, the other threads have to have the same.
                *address = socket.local_addr().context("a listening socket has no address")?;
                sockets.push(socket);
            }
            hosts.push(Host::listening(sockets, application, report)?);
        }
        let mut server = Self {
            addresses,
            threads: Vec::with_capacity(hosts.len()),
        };
        for (index, (host, waker)) in hosts.into_iter().enumerate() {
            let handle = start_thread(index, host, cpus.get(index).copied())?;
            server.threads.push(Thread { handle, waker });
        }
        Ok(server)
    }

    /// Returns the addresses that are listened on, in the order asked for; where port 0 was, the port the kernel chose.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Whether all threads serve. One that does not has an error, which [`Server::stop`] returns.
    pub fn is_running(&self) -> bool {
        !self.threads.iter().any(|thread| thread.handle.is_finished())
    }

    /// Ends all threads.
    ///
    /// # Errors
    ///
    /// The error that ended a thread before.
    pub fn stop(self) -> anyhow::Result<()> {
        for thread in &self.threads {
            thread.waker.wake().context("cannot stop a thread")?;
        }
        self.threads.into_iter().try_for_each(|thread| join(thread.handle))
    }
}

fn start_thread<A>(index: usize, host: Host<A>, cpu: Option<usize>) -> anyhow::Result<JoinHandle<anyhow::Result<()>>>
where
    A: Application + Send + 'static,
    A::Connection: Send,
{
    let (sender, started) = mpsc::channel();
    let serve = move || {
        if let Some(cpu) = cpu {
            pin_this_thread(cpu)?;
        }
        // It is waited for, so this cannot fail.
        let _ = sender.send(());
        host.run()
    };
    let handle = thread::Builder::new()
        .name(format!("serve-{index}"))
        .spawn(serve)
        .context("cannot start a thread")?;
    if started.recv().is_err() {
        join(handle)?;
        bail!("a thread of the server ended at once");
    }
    Ok(handle)
}

fn join(handle: JoinHandle<anyhow::Result<()>>) -> anyhow::Result<()> {
    match handle.join() {
        Ok(result) => result,
        Err(_) => bail!("a thread of the server panicked"),
    }
}

fn pin_this_thread(cpu: usize) -> anyhow::Result<()> {
    tidegate_affinity::pin_this_thread(cpu)
        .with_context(|| format!("cannot use CPU {cpu}; `nproc` and `taskset -p $$` show which there are"))
}

#[cfg(test)]
mod tests {
    use tidegate_apps::discard::{Config, Discard};

    use super::*;

    fn any_port(address: &str) -> [SocketAddr; 1] {
        [format!("{address}:0").parse().unwrap()]
    }

    fn applications(count: usize) -> Vec<Discard> {
        (0..count).map(|_| Discard::new(Config::default())).collect()
    }

    #[test]
    fn a_stopped_server_listens_no_more() {
        // An address of its own, on which no other test listens.
        let server = Server::start(&any_port("127.0.0.77"), &[], applications(2), |_| {}).unwrap();
        let address = server.addresses()[0];
        assert!(server.is_running());
        drop(std::net::TcpStream::connect(address).unwrap());
        server.stop().unwrap();
        std::net::TcpStream::connect(address).unwrap_err();
    }

    #[test]
    fn a_cpu_that_is_not_there_is_named() {
        let missing = usize::MAX;
        let error = Server::start(&any_port("127.0.0.1"), &[missing], applications(1), |_| {})
            .map(|_| ())
            .unwrap_err();
        assert!(error.to_string().contains(&format!("CPU {missing}")), "{error}");
    }
}
