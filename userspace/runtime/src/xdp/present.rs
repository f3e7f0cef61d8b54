//! The XDP programs that an interface has already, and whose they are.

use core::fmt;
use core::time::Duration;
use std::fs;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use aya::programs::links::LinkType;
use aya::programs::{ProgramInfo, loaded_links, loaded_programs};
use nix::net::if_::if_nametoindex;

use super::netlink::{self, Place};

/// The name of the program that runs others below it, as libxdp and xdp-tools do.
pub(super) const DISPATCHER: &str = "xdp_dispatcher";

/// The most processes that are named.
const MAX_HOLDERS: usize = 3;

/// An XDP program on an interface. What the caller may not know is empty: all but number and place needs CAP_SYS_ADMIN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresentProgram {
    /// The kernel's number for it.
    pub id: u32,
    /// Where it runs.
    pub place: Place,
    /// Its name, of which the kernel keeps 15 characters.
    pub name: Option<String>,
    /// The time since it was loaded.
    pub age: Option<Duration>,
    /// The user who loaded it.
    pub user: Option<u32>,
    /// Whether a bpf_link keeps it where it is, so that nobody else can remove it.
    pub by_link: bool,
    /// Some of the processes that have it open, or its link.
    pub holders: Vec<Holder>,
}

/// A process that has a program open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its number, in the PID namespace of the caller.
    pub pid: u32,
    /// The name of its program.
    pub name: String,
}

/// The XDP programs on `interface`, at most one at each [`Place`].
///
/// # Errors
///
/// The kernel's; that there is more to know about a program, but not for the caller, is none.
pub fn present_programs(interface: &str) -> io::Result<Vec<PresentProgram>> {
    programs_on(if_nametoindex(interface)?)
}

/// As [`present_programs`], by the interface's number.
pub(super) fn programs_on(index: u32) -> io::Result<Vec<PresentProgram>> {
    let programs = netlink::programs(index)?;
    Ok(programs.into_iter().map(|(place, id)| describe(place, id)).collect())
}

fn describe(place: Place, id: u32) -> PresentProgram {
    let info = loaded_programs().filter_map(Result::ok).find(|info| info.id() == id);
    let info = info.as_ref();
    let by_link = loaded_links()
        .filter_map(Result::ok)
        .any(|link| link.program_id() == id && link.link_type().is_ok_and(|kind| kind == LinkType::Xdp));
    PresentProgram {
        id,
        place,
        name: info.and_then(ProgramInfo::name_as_str).map(str::to_owned),
        age: info
            .and_then(ProgramInfo::loaded_at)
            .and_then(|loaded| SystemTime::now().duration_since(loaded).ok()),
        user: info.and_then(ProgramInfo::created_by_uid),
        by_link,
        holders: holders(Path::new("/proc"), id),
    }
}

/// Processes with a descriptor of the program or its link, as far as /proc shows them.
fn holders(proc: &Path, id: u32) -> Vec<Holder> {
    let Ok(processes) = fs::read_dir(proc) else {
        return Vec::new();
    };
    processes
        .flatten()
        .filter_map(|process| {
            let pid = process.file_name().to_str()?.parse().ok()?;
            let has_it = fs::read_dir(process.path().join("fdinfo"))
                .ok()?
                .flatten()
                .filter_map(|descriptor| fs::read_to_string(descriptor.path()).ok())
                .any(|text| super::link::field(&text, "prog_id") == Some(id));
            let name = has_it.then(|| fs::read_to_string(process.path().join("comm")))?.ok()?;
            Some(Holder {
                pid,
                name: name.trim_end().to_owned(),
            })
        })
        .take(MAX_HOLDERS)
        .collect()
}

impl PresentProgram {
    /// Whether it runs other programs below it by libxdp's protocol.
    pub fn is_dispatcher(&self) -> bool {
        self.name.as_deref() == Some(DISPATCHER)
    }

    /// The way to be rid of it on `interface`, as a clause.
    pub(crate) fn remedy(&self, interface: &str) -> String {
        let Self { place, holders, .. } = self;
        if self.by_link {
            return match holders.as_slice() {
                [] => "remove its link, which is pinned below /sys/fs/bpf".to_owned(),
                _ => "it goes when that process ends".to_owned(),
            };
        }
        if self.is_dispatcher() {
            return format!(
                "run beside it with attach = \"dispatcher\", or remove it and all programs below it with \
                 `xdp-loader unload {interface} --all`"
            );
        }
        let keyword = place.keyword();
        format!("stop its owner, or remove it with `ip link set dev {interface} {keyword} off`")
    }
}

impl fmt::Display for PresentProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) if self.is_dispatcher() => write!(f, "{name} of libxdp (id {}", self.id)?,
            Some(name) => write!(f, "{name} (id {}", self.id)?,
            None => write!(f, "id {} (`bpftool prog show id {0}` says more", self.id)?,
        }
        if let Some(age) = self.age {
            let age = Duration::from_secs(age.as_secs());
            write!(f, ", loaded {} ago", humantime::format_duration(age))?;
        }
        if let Some(user) = self.user {
            write!(f, " by user {user}")?;
        }
        for Holder { pid, name } in &self.holders {
            write!(f, ", open in process {pid} {name:?}")?;
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program() -> PresentProgram {
        PresentProgram {
            id: 7,
            place: Place::Generic,
            name: Some("xdpfilt_alw_all".to_owned()),
            age: Some(Duration::from_millis(61_500)),
            user: Some(0),
            by_link: false,
            holders: Vec::new(),
        }
    }

    #[test]
    fn a_program_is_told_with_its_owner_and_the_way_to_be_rid_of_it() {
        let mut program = program();
        assert_eq!(
            program.to_string(),
            "xdpfilt_alw_all (id 7, loaded 1m 1s ago by user 0)"
        );
        assert!(program.remedy("tgs0").contains("`ip link set dev tgs0 xdpgeneric off`"));
        program.name = Some(DISPATCHER.to_owned());
        assert!(
            program.to_string().starts_with("xdp_dispatcher of libxdp (id 7"),
            "{program}"
        );
        assert!(program.remedy("tgs0").contains("`xdp-loader unload tgs0 --all`"));
        program.by_link = true;
        assert!(program.remedy("tgs0").contains("pinned"));
        program.holders.push(Holder {
            pid: 4711,
            name: "tidegate".to_owned(),
        });
        assert!(
            program.to_string().ends_with(", open in process 4711 \"tidegate\")"),
            "{program}"
        );
        assert!(program.remedy("tgs0").contains("when that process ends"));
    }

    #[test]
    fn without_privileges_there_is_a_number_and_the_command_that_tells_more() {
        let program = PresentProgram {
            name: None,
            age: None,
            user: None,
            ..program()
        };
        assert_eq!(program.to_string(), "id 7 (`bpftool prog show id 7` says more)");
    }

    #[test]
    fn holders_are_processes_with_a_descriptor_of_the_program() {
        let proc = tempfile::tempdir().expect("a temporary directory");
        for (pid, text) in [
            ("12", "pos:\t0\n"),
            (
                "13",
                "pos:\t0\nlink_type:\txdp\nlink_id:\t3\nprog_id:\t7\nifindex:\t2\n",
            ),
            ("14", "pos:\t0\nprog_type:\t6\nprog_id:\t70\n"),
            ("self", "prog_id:\t7\n"),
        ] {
            let process = proc.path().join(pid);
            fs::create_dir_all(process.join("fdinfo")).expect("a directory");
            fs::write(process.join("comm"), "tidegate\n").expect("a file");
            fs::write(process.join("fdinfo/5"), text).expect("a file");
        }
        let expected = Holder {
            pid: 13,
            name: "tidegate".to_owned(),
        };
        assert_eq!(holders(proc.path(), 7), [expected]);
    }
}
