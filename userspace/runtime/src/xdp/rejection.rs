//! The kernel's rejection of a program, in a line that says why instead of the verifier's whole log.

use std::fs;

use aya::programs::ProgramError;

/// Beginnings of lines that stand behind the verifier's verdict: its statistics.
const STATISTICS: [&str; 7] = [
    "processed ",
    "insns processed ",
    "verification time ",
    "stack depth ",
    "subprog ",
    "mark_precise: ",
    "max_states_per_insn ",
];

/// The beginning of the report, several pages long, that Linux 7.3 and later put behind the verdict.
const REPORT: &str = "Verification failed: ";

/// A program that the kernel's verifier refused. `Display` says which, on which kernel, why, and what to do;
/// [`Rejection::log`] has the rest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "Linux {kernel} refuses the XDP program {program}: {verdict}; run a kernel that the README names as tried, and \
     report this one together with the verifier's log, which -v prints"
)]
pub struct Rejection {
    program: String,
    kernel: String,
    verdict: String,
    log: String,
}

impl Rejection {
    /// The rejection that `error` is of the program called `program`; `None` if it is another error, or there is no
    /// log: the kernel has not come so far as to verify.
    pub fn of(program: &str, error: &ProgramError) -> Option<Self> {
        let ProgramError::LoadError { io_error, verifier_log } = error else {
            return None;
        };
        Self::new(
            program,
            &kernel_release(),
            &verifier_log.to_string(),
            &io_error.to_string(),
        )
    }

    fn new(program: &str, kernel: &str, log: &str, reason: &str) -> Option<Self> {
        if log.trim().is_empty() {
            return None;
        }
        let verdict = match verdict(log) {
            Some(line) => format!("{line} ({reason})"),
            None => reason.to_owned(),
        };
        Some(Self {
            program: program.to_owned(),
            kernel: kernel.to_owned(),
            verdict,
            log: log.to_owned(),
        })
    }

    /// The last line of the verifier's log that says something about the program, and the error number's text.
    pub fn verdict(&self) -> &str {
        &self.verdict
    }

    /// All that the verifier said: some 100 lines to many thousands.
    pub fn log(&self) -> &str {
        &self.log
    }
}

/// The release of the running kernel, as `uname -r` prints it.
pub fn kernel_release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").map_or_else(|_| "?".to_owned(), |text| text.trim().to_owned())
}

fn verdict(log: &str) -> Option<&str> {
    let is_report = |line: &&str| line.starts_with(REPORT);
    let is_verdict =
        |line: &&str| !line.is_empty() && !STATISTICS.iter().any(|statistics| line.starts_with(statistics));
    // An instruction, or the source line it is of.
    let is_listing = |line: &&str| line.starts_with(|first: char| first.is_ascii_digit() || first == ';');
    let lines = || log.lines().map(str::trim);
    let last = lines().take_while(|line| !is_report(line)).filter(is_verdict).last();
    last.filter(|line| !is_listing(line))
        .or_else(|| lines().find(is_report))
        .or(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ends of three logs, as Linux 6.1.192, 7.2.12 and 7.3.4 wrote them.
    const V6_1: &str = "99: (dc) r3 = be16 r3                  ; R3_w=scalar()
100: (bf) r4 = r9                     ; R4_w=pkt(off=0,r=54,imm=0) R9=pkt(off=0,r=54,imm=0)
101: (0f) r4 += r3
math between pkt pointer and register with unbounded min value is not allowed
verification time 4380 usec
stack depth 152+0
processed 102 insns (limit 1000000) max_states_per_insn 0 total_states 9 peak_states 9 mark_read 3
";
    const V7_2: &str = "; self.header(offset - 1).map(|&[_, octet]| octet) @ parse.rs:117
3576: (71) r2 = *(u8 *)(r2 +1)
R2 unbounded memory access, make sure to bounds check any such access
verification time 817707 usec
stack depth 192+56 max 0
insns processed 2259
processed 2259 insns (limit 1000000) max_states_per_insn 4 total_states 152 peak_states 152 mark_read 0
";
    const V7_3: &str = "3576: (71) r2 = *(u8 *)(r2 +1)
R2 unbounded memory access, make sure to bounds check any such access
Verification failed: Memory Safety: Access outside bounds
Reason:
  The verifier cannot prove offset + access_size <= object_size. Here, the maximal bound for a
  memory access is 18446744073709551615 and exceeds maximum allowed offset of 536870912.
At:
  read_octets @ parse.rs:117:43
  Source context:
  >>> 117 |         self.header(offset - 1).map(|&[_, octet]| octet)
          |         ^-- error: access may be outside object bounds
Suggestion:
  Add or adjust a bounds check that proves offset + access_size stays within the object.
verification time 823596 usec
stack depth max 0
subprog 0 (tidegate) main insns_self 2217 insns_total 2259 stack 192
subprog 1 (read_octets) static insns_self 42 insns_total 42 stack 56
processed 2259 insns (limit 1000000) max_states_per_insn 4 total_states 152 peak_states 152 mark_read 0

";

    #[test]
    fn the_verdict_is_the_last_line_that_is_no_statistics() {
        assert_eq!(
            verdict(V6_1),
            Some("math between pkt pointer and register with unbounded min value is not allowed")
        );
        for log in [V7_2, V7_3] {
            assert_eq!(
                verdict(log),
                Some("R2 unbounded memory access, make sure to bounds check any such access")
            );
        }
        assert_eq!(
            verdict("7: (85) call bpf_loop#181\nVerification failed: Loop: No bound\nSuggestion:\n  Bound it."),
            Some("Verification failed: Loop: No bound")
        );
        assert_eq!(
            verdict("BPF program is too large. Processed 1000001 insn\nprocessed 1000001 insns (limit 1000000)"),
            Some("BPF program is too large. Processed 1000001 insn")
        );
        assert_eq!(verdict("processed 1 insns"), None);
    }

    #[test]
    fn the_sentence_names_program_kernel_and_verdict_in_one_line() {
        for log in [V6_1, V7_2, V7_3] {
            let long = log.repeat(500);
            let rejection =
                Rejection::new("tidegate", "6.1.0-57-amd64", &long, "Invalid argument").expect("there is a log");
            let sentence = rejection.to_string();
            assert!(sentence.len() < 400 && !sentence.contains('\n'), "{sentence}");
            for part in [
                "tidegate",
                "6.1.0-57-amd64",
                "(Invalid argument)",
                "-v",
                verdict(log).expect("a line"),
            ] {
                assert!(sentence.contains(part), "{sentence}");
            }
            assert_eq!(rejection.log(), long);
        }
    }

    #[test]
    fn without_a_log_nothing_was_refused_by_the_verifier() {
        assert_eq!(
            Rejection::new("tidegate", "6.1", " \n", "Operation not permitted"),
            None
        );
        assert!(Rejection::of("tidegate", &ProgramError::NotLoaded).is_none());
    }

    #[test]
    fn this_kernel_has_a_release() {
        assert!(kernel_release().starts_with(|first: char| first.is_ascii_digit()));
    }
}
