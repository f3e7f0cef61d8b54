//! The traffic programs: embedded, loaded, attached, counted.

use anyhow::{Context, anyhow};
use aya::maps::{Array, MapData, MapError, PerCpuArray, PerCpuValues, ProgramArray, XskMap};
use aya::programs::links::FdLink;
use aya::programs::{ProgramFd, Xdp, XdpMode};
use aya::util::nr_cpus;
use aya::{Ebpf, EbpfError, EbpfLoader, Pod};
use tidegate_runtime::{Rejection, errno};
use tidegate_traffic_abi::{MAP_SOCKETS, MAP_TRAFFIC};

/// The object as it is embedded, aligned for the loader.
fn object() -> &'static [u8] {
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/traffic.o"))
}

/// The programs with maps of their own.
///
/// # Errors
///
/// The kernel refuses a map.
pub fn load() -> anyhow::Result<Ebpf> {
    EbpfLoader::new().load(object()).map_err(|error| {
        let errno = match &error {
            EbpfError::MapError(MapError::CreateError { io_error, .. }) => io_error.raw_os_error(),
            _ => None,
        };
        with_remedy(anyhow!(error), errno, "CAP_BPF").context("cannot load the traffic programs")
    })
}

/// Has the kernel take the program `name`, and returns it.
///
/// # Errors
///
/// The kernel refuses it.
pub(crate) fn load_program<'a>(ebpf: &'a mut Ebpf, name: &str) -> anyhow::Result<&'a mut Xdp> {
    let program = ebpf.program_mut(name).with_context(|| missing("program", name))?;
    let program = <&mut Xdp>::try_from(program).with_context(|| format!("{name} is no XDP program"))?;
    program.load().map_err(|error| {
        let errno = errno(&error);
        // The sentence instead of the verifier's log.
        let error = match Rejection::of(name, &error) {
            Some(rejection) if errno != Some(libc::EPERM) => anyhow!(rejection),
            _ => anyhow!(error),
        };
        with_remedy(error, errno, "CAP_BPF").context(format!("cannot load the program {name}"))
    })?;
    Ok(program)
}

/// Loads the program `name` and attaches it to `interface` in native mode. Dropping what is returned detaches it.
///
/// # Errors
///
/// The kernel refuses the program, or the interface's driver does.
pub fn attach(ebpf: &mut Ebpf, name: &str, interface: &str) -> anyhow::Result<FdLink> {
    let program = load_program(ebpf, name)?;
    let failed = || format!("cannot attach the program {name} to {interface} in native mode");
    let id = program.attach(interface, XdpMode::Driver).map_err(|error| {
        let errno = errno(&error);
        let error = anyhow!(error);
        let error = match errno {
            Some(libc::EBUSY | libc::EEXIST) => error.context(format!(
                "there is an XDP program on {interface} already; remove it with `ip link set dev {interface} xdp off`"
            )),
            Some(libc::EOPNOTSUPP | libc::ERANGE | libc::ENOSPC) => error.context(
                "the driver does not take native XDP, or not with this MTU, or not with these queues (a veth device \
                 needs as many to receive as its peer has to send)",
            ),
            _ => with_remedy(error, errno, "CAP_NET_ADMIN"),
        };
        error.context(failed())
    })?;
    let link = program.take_link(id).with_context(failed)?;
    FdLink::try_from(link).with_context(|| {
        format!(
            "the kernel attached the program {name} without a link, so it is still on {interface}; remove it with \
             `ip link set dev {interface} xdp off`"
        )
    })
}

/// Sets the one entry of the array `name`.
///
/// # Errors
///
/// The kernel's error.
pub(crate) fn set_only_entry<V: Pod>(ebpf: &mut Ebpf, name: &str, value: V) -> anyhow::Result<()> {
    let failed = || format!("cannot write the map {name}");
    let map = ebpf.map_mut(name).with_context(|| missing("map", name))?;
    let mut map = Array::<&mut MapData, V>::try_from(map).with_context(failed)?;
    map.set(0, value, 0).with_context(failed)
}

/// Sets the one entry of the per-CPU array `name` to what `value` gives for each CPU.
///
/// # Errors
///
/// The kernel's error.
pub(crate) fn set_per_cpu<V: Pod>(ebpf: &mut Ebpf, name: &str, value: impl FnMut() -> V) -> anyhow::Result<()> {
    let failed = || format!("cannot write the map {name}");
    let map = ebpf.map_mut(name).with_context(|| missing("map", name))?;
    let mut map = PerCpuArray::<&mut MapData, V>::try_from(map).with_context(failed)?;
    let cpus = nr_cpus()
        .map_err(|(file, error)| anyhow!(error).context(format!("cannot read the number of CPUs from {file}")))?;
    let values: Vec<V> = std::iter::repeat_with(value).take(cpus).collect();
    let values = PerCpuValues::<V>::try_from(values).with_context(failed)?;
    map.set(0, values, 0).with_context(failed)
}

/// Sets the one entry of the map of programs `name`.
///
/// # Errors
///
/// The kernel's error.
pub(crate) fn set_program(ebpf: &mut Ebpf, name: &str, program: &ProgramFd) -> anyhow::Result<()> {
    let failed = || format!("cannot write the map {name}");
    let map = ebpf.map_mut(name).with_context(|| missing("map", name))?;
    let mut map = ProgramArray::<&mut MapData>::try_from(map).with_context(failed)?;
    map.set(0, program, 0).with_context(failed)
}

/// Takes the map of the AF_XDP sockets out of the loaded object.
///
/// # Errors
///
/// It is not there.
pub fn take_sockets(ebpf: &mut Ebpf) -> anyhow::Result<XskMap<MapData>> {
    let map = ebpf
        .take_map(MAP_SOCKETS)
        .with_context(|| missing("map", MAP_SOCKETS))?;
    XskMap::try_from(map).with_context(|| format!("cannot use the map {MAP_SOCKETS}"))
}

/// The programs' counters.
pub(crate) struct Counters(PerCpuArray<MapData, u64>);

impl Counters {
    /// Takes them out of the loaded object.
    ///
    /// # Errors
    ///
    /// They are not there, or no counters.
    pub(crate) fn take(ebpf: &mut Ebpf) -> anyhow::Result<Self> {
        let map = ebpf
            .take_map(MAP_TRAFFIC)
            .with_context(|| missing("map", MAP_TRAFFIC))?;
        let map =
            PerCpuArray::<MapData, u64>::try_from(map).with_context(|| format!("cannot use the map {MAP_TRAFFIC}"))?;
        Ok(Self(map))
    }

    /// The counter at `index`, summed over CPUs.
    pub(crate) fn get(&self, index: u32) -> u64 {
        // The call fails only for an index past the end or what is no map, and this is one as long as it lives.
        self.0.get(&index, 0).map_or(0, |per_cpu| per_cpu.iter().sum())
    }
}

/// Says what is missing, if the kernel did not permit it.
pub(crate) fn with_remedy(error: anyhow::Error, errno: Option<i32>, capability: &str) -> anyhow::Error {
    match errno {
        Some(libc::EPERM) => error.context(format!("that takes root or the capability {capability}")),
        _ => error,
    }
}

fn missing(what: &str, name: &str) -> String {
    format!("the embedded object has no {what} {name}; it was built from other sources")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_object_is_elf_and_aligned() {
        let object = object();
        assert_eq!(object.get(..4), Some(&b"\x7fELF"[..]));
        assert_eq!(object.as_ptr().align_offset(8), 0);
    }

    #[test]
    fn a_capability_is_only_named_where_one_is_missing() {
        let text = |errno| format!("{:#}", with_remedy(anyhow!("cause"), Some(errno), "CAP_BPF"));
        assert!(text(libc::EPERM).contains("CAP_BPF"));
        // What the verifier does not accept.
        assert_eq!(text(libc::EACCES), "cause");
    }
}
