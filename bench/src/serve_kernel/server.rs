//! The threads of the server: started together, stopped together.

use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use anyhow::{Context, bail};
use mio::Waker;
use tidegate_apps::Listen;
use tidegate_tcp::application::Application;

use super::listener;
use super::worker::Worker;

/// A running server.
pub(super) struct Server {
    listeners: Vec<Listen>,
    threads: Vec<Thread>,
}

struct Thread {
    handle: JoinHandle<anyhow::Result<()>>,
    waker: Waker,
}

impl Server {
    /// Listens, and starts a thread for each of `applications`, the first bound to the first of `cpus` and so on. When
    /// it returns, all threads serve.
    ///
    /// # Errors
    ///
    /// A sentence: an address cannot be listened on, a CPU not be used, or the kernel refuses something else.
    pub(super) fn start<A>(listen: &[Listen], cpus: &[usize], applications: Vec<A>) -> anyhow::Result<Self>
    where
        A: Application + Send + 'static,
        A::Connection: Send,
    {
        let mut listeners = listen.to_vec();
        let shared = applications.len() > 1;
        if shared {
            listeners.iter().try_for_each(listener::check_free)?;
        }
        let mut workers = Vec::with_capacity(applications.len());
        for application in applications {
            let mut sockets = Vec::with_capacity(listeners.len());
            for listen in &mut listeners {
                let socket = listener::open(listen, shared)?;
                // Where the kernel chose the port, the other threads have to have the same.
                listen.address = socket.local_addr().context("a listening socket has no address")?;
                sockets.push(socket);
            }
            workers.push(Worker::new(sockets, application)?);
        }
        let mut server = Self {
            listeners,
            threads: Vec::with_capacity(workers.len()),
        };
        for (index, (worker, waker)) in workers.into_iter().enumerate() {
            let handle = start_thread(index, worker, cpus.get(index).copied())?;
            server.threads.push(Thread { handle, waker });
        }
        Ok(server)
    }

    /// What is listened for, in the order asked for; where port 0 was, the port the kernel chose.
    pub(super) fn listeners(&self) -> &[Listen] {
        &self.listeners
    }

    /// Whether all threads serve. One that does not has an error, which [`Server::stop`] returns.
    pub(super) fn is_running(&self) -> bool {
        !self.threads.iter().any(|thread| thread.handle.is_finished())
    }

    /// Ends all threads.
    ///
    /// # Errors
    ///
    /// What ended a thread before.
    pub(super) fn stop(self) -> anyhow::Result<()> {
        for thread in &self.threads {
            thread.waker.wake().context("cannot stop a thread")?;
        }
        self.threads.into_iter().try_for_each(|thread| join(thread.handle))
    }
}

fn start_thread<A>(
    index: usize,
    worker: Worker<A>,
    cpu: Option<usize>,
) -> anyhow::Result<JoinHandle<anyhow::Result<()>>>
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
        worker.run()
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
    use tidegate_apps::ServiceKind;
    use tidegate_apps::discard::{Config, Discard};

    use super::*;

    fn any_port(address: &str) -> [Listen; 1] {
        [Listen {
            service: ServiceKind::Discard,
            address: format!("{address}:0").parse().unwrap(),
        }]
    }

    fn applications(count: usize) -> Vec<Discard> {
        (0..count).map(|_| Discard::new(Config::default())).collect()
    }

    #[test]
    fn a_stopped_server_listens_no_more() {
        // An address of its own, on which no other test listens.
        let server = Server::start(&any_port("127.0.0.77"), &[], applications(2)).unwrap();
        let address = server.listeners()[0].address;
        assert!(server.is_running());
        drop(std::net::TcpStream::connect(address).unwrap());
        server.stop().unwrap();
        std::net::TcpStream::connect(address).unwrap_err();
    }

    #[test]
    fn a_cpu_that_is_not_there_is_named() {
        let missing = usize::MAX;
        let error = Server::start(&any_port("127.0.0.1"), &[missing], applications(1))
            .map(|_| ())
            .unwrap_err();
        assert!(error.to_string().contains(&format!("CPU {missing}")), "{error}");
    }
}
