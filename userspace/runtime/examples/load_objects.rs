//! Has the running kernel take every XDP program of the given objects, and use what the programs need: `make
//! test-kernels` runs this in virtual machines.
//!
//! A line for each program: kernel, object, program, and `accepted` or `REFUSED` with the verifier's verdict. What is
//! accepted is run by `BPF_PROG_TEST_RUN`, so that every kind of map and every helper is used once. Exit code 1 if
//! anything was refused or went wrong. `VERIFIER_LOG=1` prints the log of each rejection to standard error.

#[path = "../tests/frames/mod.rs"]
#[allow(dead_code)]
mod frames;
#[path = "../tests/program/mod.rs"]
#[allow(dead_code)]
mod program;

use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;

use aya::programs::{Extension, ProgramError, TestRunAttrs, Xdp};
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfLoader, TestRun as _, TestRunOptions};
use tidegate_abi::dispatcher::Config;
use tidegate_abi::siphash::Key;
use tidegate_abi::syn_ack::{SynAck, SynRate, cookie_switch, feature, source_rule};
use tidegate_abi::{ListenerKey, PROGRAM_STEER, PROGRAM_STEER_FRAGS, XdpCounter};
use tidegate_runtime::{Rejection, kernel_release};
use tidegate_traffic_abi::PROGRAM_FLOOD;
use tidegate_xsk::options::probe_multi_buffer;

use frames::outer::{BALANCER_V4, BALANCER_V6, GUE_PORT, OWN_V4, OWN_V6, Outer};
use frames::segment::{ACK, Segment, clients};
use frames::{CLIENT_V4, CLIENT_V6, PORT};
use program::Program;

/// Beside the object of the steering program.
const DISPATCHER: &str = "xdp-dispatcher.o";

const VLAN: u16 = 0x8100;
const SERVICE_VLAN: u16 = 0x88a8;

const FIRST_WITH_LIVE_FRAMES: KernelVersion = KernelVersion::new(5, 18, 0);

/// The first kernel that takes XDP programs for frames in several buffers.
const FIRST_WITH_FRAGS: KernelVersion = KernelVersion::new(5, 18, 0);

/// The first kernel whose AF_XDP has packets of several buffers.
const FIRST_WITH_MULTI_BUFFER: KernelVersion = KernelVersion::new(6, 6, 0);

const HOUR_NS: u64 = 3_600_000_000_000;

const TEMPLATE: SynAck = SynAck {
    window: 65_535,
    mss_v4: 1460,
    mss_v6: 1440,
    window_shift: 7,
    ecn: 0,
    ms_per_jiffy: SynAck::per_jiffy(4_000_000),
};

/// Prints results, and remembers whether all were good.
struct Results {
    kernel: String,
    failed: bool,
}

impl Results {
    fn line(&mut self, object: &str, what: &str, result: Result<String, String>) {
        let result = result.unwrap_or_else(|failure| {
            self.failed = true;
            failure
        });
        println!("{} {object} {what}: {result}", self.kernel);
    }
}

fn main() -> ExitCode {
    let objects: Vec<String> = std::env::args().skip(1).collect();
    if objects.is_empty() {
        eprintln!("usage: load_objects OBJECT...");
        return ExitCode::from(2);
    }
    let mut results = Results {
        kernel: kernel_release(),
        failed: false,
    };
    for path in &objects {
        object(path, &mut results);
    }
    results.line("AF_XDP", "packets of several buffers", multi_buffer());
    if results.failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// Whether sockets can have packets of several buffers, which is asked for where an MTU takes them.
fn multi_buffer() -> Result<String, String> {
    let has = probe_multi_buffer().map_err(|error| format!("FAILED: {error}"))?;
    let should = KernelVersion::current().is_ok_and(|version| version >= FIRST_WITH_MULTI_BUFFER);
    match (has, should) {
        (true, _) => Ok("ok".to_owned()),
        (false, false) => Ok("none before Linux 6.6; an MTU above 3,498 is refused".to_owned()),
        (false, true) => Err("FAILED: none".to_owned()),
    }
}

/// Loads what is in the object at `path`, and runs it.
fn object(path: &str, results: &mut Results) {
    let object = Path::new(path)
        .file_name()
        .map_or_else(|| path.to_owned(), |name| name.to_string_lossy().into_owned());
    let loaded = std::fs::read(path)
        .map_err(|error| error.to_string())
        .and_then(|bytes| Ebpf::load(&bytes).map_err(|error| format!("{error}: {error:?}")));
    let mut ebpf = match loaded {
        Ok(ebpf) => ebpf,
        Err(error) => return results.line(&object, "maps", Err(format!("REFUSED: {error}"))),
    };
    results.line(&object, "maps", Ok(format!("{} made", ebpf.maps().count())));
    let mut names: Vec<String> = ebpf.programs().map(|(name, _)| name.to_owned()).collect();
    names.sort();
    let mut accepted = Vec::new();
    for name in names {
        if name == PROGRAM_STEER_FRAGS && KernelVersion::current().is_ok_and(|version| version < FIRST_WITH_FRAGS) {
            results.line(
                &object,
                &name,
                Ok("not for this kernel; none such before Linux 5.18".to_owned()),
            );
            continue;
        }
        let result = load(&mut ebpf, &name);
        if result.is_ok() {
            accepted.push(name.clone());
        }
        results.line(&object, &name, result);
    }
    let several_buffers = accepted.iter().any(|name| name == PROGRAM_STEER_FRAGS);
    if accepted.iter().any(|name| name == PROGRAM_STEER) {
        let beside = Path::new(path).with_file_name(DISPATCHER);
        results.line(&object, "below a dispatcher", extend(&beside, path));
    }
    for name in accepted {
        if name == PROGRAM_FLOOD {
            results.line(&object, "flood, live frames", live_frames(&ebpf));
        } else if name == PROGRAM_STEER {
            return steer(&object, Program::of(ebpf), several_buffers, results);
        }
    }
}

fn load(ebpf: &mut Ebpf, name: &str) -> Result<String, String> {
    let program = ebpf.program_mut(name).ok_or("REFUSED: not in the object")?;
    let program: &mut Xdp = program
        .try_into()
        .map_err(|error: ProgramError| format!("REFUSED: {error}"))?;
    if let Err(error) = program.load() {
        let Some(rejection) = Rejection::of(name, &error) else {
            return Err(format!("REFUSED: {error}"));
        };
        if std::env::var_os("VERIFIER_LOG").is_some() {
            eprintln!("{}", rejection.log());
        }
        return Err(format!("REFUSED: {}", rejection.verdict()));
    }
    let verified = program.info().ok().and_then(|info| info.verified_instruction_count());
    Ok(match verified {
        Some(count) => format!("accepted, {count} instructions verified"),
        None => "accepted".to_owned(),
    })
}

/// Has the steering program of the object at `path` take the place of a function of the dispatcher at `dispatcher`.
fn extend(dispatcher: &Path, path: &str) -> Result<String, String> {
    let refused = |error: &dyn std::error::Error| format!("REFUSED: {error}: {error:?}");
    let read = |path: &Path| std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    let config = Config {
        programs: 1,
        ..Config::EMPTY
    };
    let mut dispatcher = EbpfLoader::new()
        .override_global("CONFIG", &config, true)
        .load(&read(dispatcher)?)
        .map_err(|error| refused(&error))?;
    let (_, dispatcher) = dispatcher.programs_mut().next().ok_or("the dispatcher is empty")?;
    let dispatcher: &mut Xdp = dispatcher.try_into().map_err(|error: ProgramError| refused(&error))?;
    dispatcher.load().map_err(|error| refused(&error))?;
    let dispatcher = dispatcher.fd().map_err(|error| refused(&error))?;
    let mut object = EbpfLoader::new()
        .extension(PROGRAM_STEER)
        .load(&read(Path::new(path))?)
        .map_err(|error| refused(&error))?;
    let program = object.program_mut(PROGRAM_STEER).ok_or("REFUSED: not in the object")?;
    let program: &mut Extension = program.try_into().map_err(|error: ProgramError| refused(&error))?;
    let dispatcher = dispatcher.try_clone().map_err(|error| refused(&error))?;
    program.load(dispatcher, "prog0").map_err(|error| refused(&error))?;
    program.attach().map_err(|error| refused(&error))?;
    Ok("accepted".to_owned())
}

/// Runs the flood, which has nothing to send, as the generator does: on frames that the kernel makes.
fn live_frames(ebpf: &Ebpf) -> Result<String, String> {
    const FRAME: [u8; 64] = [0; 64];
    let program: &Xdp = ebpf
        .program(PROGRAM_FLOOD)
        .ok_or("not in the object")?
        .try_into()
        .map_err(|error: ProgramError| error.to_string())?;
    let run = program.test_run(TestRunOptions {
        data_in: Some(&FRAME),
        repeat: 256,
        attrs: TestRunAttrs::new().xdp_live_frames(64),
        ..TestRunOptions::default()
    });
    match run {
        Ok(_) => Ok("ok".to_owned()),
        Err(_) if KernelVersion::current().is_ok_and(|version| version < FIRST_WITH_LIVE_FRAMES) => {
            Ok("none before Linux 5.18; the generator takes an AF_XDP socket instead".to_owned())
        }
        Err(error) => Err(format!("FAILED: {error}: {error:?}")),
    }
}

/// Runs the steering program once for each of its features, and that for frames in `several_buffers`, if it is loaded,
/// on such a frame.
fn steer(object: &str, mut program: Program, several_buffers: bool, results: &mut Results) {
    program.serve(frames::served_v4());
    program.serve(frames::served_v6());
    program.open_socket();
    program.set_cookie_key(0, Key(1, 2));
    program.set_syn_ack(TEMPLATE);
    program.set_syn_rate(SynRate {
        cost_ns: HOUR_NS,
        burst_ns: HOUR_NS,
        prefix_v4: 32,
        prefix_v6: 64,
    });
    for client in clients() {
        let family = if client.is_ipv4() { "IPv4" } else { "IPv6" };
        let mut expect = |program: &Program, feature: &str, frame: &[u8], expected: XdpCounter| {
            let reason = program.reason(frame);
            let result = if reason == expected {
                Ok("ok".to_owned())
            } else {
                Err(format!("FAILED: {reason:?} and not {expected:?}"))
            };
            results.line(object, &format!("steer, {family}, {feature}"), result);
        };
        let syn = Segment::syn(client);
        let segment = Segment {
            flags: ACK,
            ..syn.clone()
        };
        expect(&program, "segment", &segment.frame(), XdpCounter::Redirect);
        expect(&program, "SYN", &syn.frame(), XdpCounter::RedirectSyn);
        program.set_cookie_switch(0, cookie_switch::on(0));
        for (feature, options) in [
            (
                "cookie",
                &[2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7][..],
            ),
            (
                "cookie, options in odd places",
                &[1, 2, 4, 5, 0xb4, 1, 3, 3, 8, 1, 4, 2][..],
            ),
        ] {
            let syn = Segment {
                options: options.to_vec(),
                ..syn.clone()
            };
            expect(&program, feature, &syn.frame(), XdpCounter::TxSynCookie);
        }
        program.set_cookie_switch(0, cookie_switch::OFF);
        program.set_features(feature::SYN_RATE);
        expect(&program, "SYN rate, first", &syn.frame(), XdpCounter::RedirectSyn);
        expect(&program, "SYN rate, second", &syn.frame(), XdpCounter::DropSynRate);
        program.set_features(feature::SOURCE_RULES);
        program.set_source_rule(client, if client.is_ipv4() { 32 } else { 128 }, source_rule::DENY);
        expect(&program, "source rule", &segment.frame(), XdpCounter::DropSourceDenied);
        let (remote, destination_port) = (remote_of(client), PORT + 1);
        program.steer_from(remote);
        program.set_features(feature::REMOTES);
        let answer = Segment {
            destination_port,
            ..segment
        };
        expect(&program, "remote", &answer.frame(), XdpCounter::RedirectRemote);
        program.set_features(0);
    }
    if several_buffers {
        run_several_buffers(object, &mut program, results);
    }
    decapsulate(object, program, results);
}

/// Runs the program for frames in several buffers on one in each family.
fn run_several_buffers(object: &str, program: &mut Program, results: &mut Results) {
    program.use_several_buffers();
    for client in clients() {
        let segment = Segment {
            flags: ACK,
            text: vec![0; 8000],
            ..Segment::syn(client)
        };
        let result = match program.reason(&segment.frame()) {
            XdpCounter::Redirect => Ok("ok".to_owned()),
            reason => Err(format!("FAILED: {reason:?}")),
        };
        results.line(object, &format!("steer, {client}, frame in several buffers"), result);
    }
}

/// Runs the program that decapsulates, once for each kind of outer headers.
fn decapsulate(object: &str, mut program: Program, results: &mut Results) {
    program.decapsulates();
    program.set_balancer(BALANCER_V4, OWN_V4, GUE_PORT);
    program.set_balancer(BALANCER_V6, OWN_V6, GUE_PORT);
    for outer in Outer::all() {
        for client in clients() {
            let segment = Segment {
                flags: ACK,
                ..Segment::syn(client)
            };
            let (reason, is_decapsulated, left) = program.counted_verdict(&outer.around(&segment.frame()));
            let result = if (reason, is_decapsulated) == (XdpCounter::Redirect, true) && left == segment.frame() {
                Ok("ok".to_owned())
            } else {
                Err(format!("FAILED: {reason:?}"))
            };
            let what = format!("steer, {client} in {:?} from {}", outer.between, outer.source);
            results.line(object, &what, result);
        }
    }
}

/// The key of the port that [`Segment::syn`] sends from.
fn remote_of(client: IpAddr) -> ListenerKey {
    let port = Segment::syn(client).source_port;
    match client {
        IpAddr::V4(_) => ListenerKey::v4(CLIENT_V4, port),
        IpAddr::V6(_) => ListenerKey::v6(CLIENT_V6, port),
    }
}
