//! `tidegate doctor`: whether an interface can be served as configured, and what stands in the way.

use std::fmt::Write as _;
use std::process::ExitCode;

use tidegate_apps::{ServiceKind, Services};
use tidegate_nic::{Facts, Finding, Severity};
use tidegate_runtime::doctor::{Diagnosis, diagnose, interfaces, mode_of};

use crate::arguments::DoctorArguments;
use crate::failure::Failure;
use crate::kernel_listeners;
use crate::say;
use crate::serve::listeners;
use crate::settings::Settings;

/// Prints what was found about an interface, or if none is given, a table of all.
///
/// # Errors
///
/// A usage failure as of `serve`, or the kernel tells of no interfaces.
pub(crate) fn run(arguments: DoctorArguments) -> Result<ExitCode, Failure> {
    let mut serve = arguments.serve;
    if !arguments.interface.is_empty() {
        serve.iface = arguments.interface;
    }
    let Some(settings) = Settings::gather_to_check(&serve)? else {
        let all = interfaces()?;
        say(&if arguments.json { json(&all) } else { table(&all) });
        return Ok(ExitCode::SUCCESS);
    };
    let diagnosis = examine(&settings);
    say(&if arguments.json {
        json(&diagnosis)
    } else {
        text(&diagnosis)
    });
    Ok(ExitCode::from(u8::from(!diagnosis.is_fit())))
}

/// Everything that is found before `settings` are served.
fn examine(settings: &Settings) -> Diagnosis {
    let config = &settings.config;
    let mut diagnosis = diagnose(&tidegate_runtime::Settings {
        interfaces: &settings.interfaces,
        afxdp: &config.afxdp,
        tcp: &config.tcp,
        syn_cookies: &config.syn_cookies,
        sources: &config.sources,
        balancers: &config.balancers,
        listeners: &listeners(settings),
        remotes: &[],
        opened: || Ok(()),
    });
    diagnosis.findings.extend(kernel_listeners::findings(&config.listen));
    let kinds: Vec<ServiceKind> = config.listen.iter().map(|listen| listen.service).collect();
    let services = Services::new(kinds, config.echo.clone(), config.discard.clone(), config.http.clone());
    if let Err(error) = services {
        diagnosis.findings.push(Finding::failure("services", error.to_string()));
    }
    if !diagnosis.is_fit() {
        diagnosis.devices.iter_mut().for_each(|device| device.mode = None);
    }
    diagnosis
}

fn json(value: &impl serde::Serialize) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("what is read of the kernel has no maps without names");
    text.push('\n');
    text
}

/// A line for each finding, and what follows from all of them.
fn text(diagnosis: &Diagnosis) -> String {
    let name = diagnosis.interfaces.join(" and ");
    let mut text = format!("tidegate doctor: {name}\n");
    for finding in &diagnosis.findings {
        let _ = writeln!(
            text,
            "{:<8} {:<12} {}",
            finding.severity, finding.subject, finding.sentence
        );
    }
    let count = |severity| {
        diagnosis
            .findings
            .iter()
            .filter(|finding| finding.severity == severity)
            .count()
    };
    let (failures, warnings) = (count(Severity::Failure), count(Severity::Warning));
    for device in &diagnosis.devices {
        let Some(mode) = device.mode else { continue };
        let copy = if mode.zero_copy { "zero-copy" } else { "copy" };
        let _ = writeln!(
            text,
            "mode of {}: xdp {}, af_xdp {copy}, frames of {} bytes, {} queues",
            device.name, mode.xdp, mode.frame_size, mode.queues
        );
    }
    let verdict = if diagnosis.is_fit() {
        "can be served"
    } else {
        "cannot be served"
    };
    let _ = writeln!(
        text,
        "result: {name} {verdict}; failures: {failures}, warnings: {warnings}"
    );
    text
}

/// A line for each interface.
fn table(all: &[Facts]) -> String {
    let mut text = String::new();
    let mut line = |cells: [&str; 7]| {
        let [name, driver, state, mtu, queues, mode, program] = cells;
        let line = format!("{name:<15} {driver:<12} {state:<10} {mtu:>5} {queues:>6} {mode:<17} {program}");
        let _ = writeln!(text, "{}", line.trim_end());
    };
    line(["interface", "driver", "state", "mtu", "queues", "mode", "xdp program"]);
    for facts in all {
        let state = match (facts.up, facts.carrier) {
            (true, true) => "up",
            (true, false) => "no carrier",
            (false, _) => "down",
        };
        let (attached, zero_copy) = mode_of(facts);
        let mode = format!("{attached}, {}", if zero_copy { "zero-copy" } else { "copy" });
        let program = facts.programs.first().map(|program| program.id.to_string());
        line([
            &facts.name,
            facts.driver_name().unwrap_or("-"),
            state,
            &facts.mtu.to_string(),
            &facts.rx_queues.min(facts.tx_queues).to_string(),
            &mode,
            program.as_deref().unwrap_or("-"),
        ]);
    }
    text += "tidegate doctor IFACE says more of one\n";
    text
}

#[cfg(test)]
mod tests {
    use tidegate_runtime::Attached;
    use tidegate_runtime::doctor::{DiagnosedDevice, ExpectedMode};

    use super::*;

    fn diagnosis(findings: Vec<Finding>) -> Diagnosis {
        Diagnosis {
            interfaces: vec!["nic0".to_owned()],
            findings,
            devices: vec![DiagnosedDevice {
                name: "nic0".to_owned(),
                mode: Some(ExpectedMode {
                    xdp: Attached::Native,
                    zero_copy: true,
                    frame_size: 4096,
                    queues: 2,
                }),
                facts: None,
            }],
        }
    }

    #[test]
    fn a_diagnosis_is_a_line_for_each_finding_and_a_result() {
        let warning = Finding::warning("offloads", "it is on; switch it off with `off`");
        let one = diagnosis(vec![Finding::ok("driver", "igb"), warning.clone()]);
        assert_eq!(
            text(&one),
            "tidegate doctor: nic0\n\
             ok       driver       igb\n\
             warning  offloads     it is on; switch it off with `off`\n\
             mode of nic0: xdp native, af_xdp zero-copy, frames of 4096 bytes, 2 queues\n\
             result: nic0 can be served; failures: 0, warnings: 1\n"
        );
        let other = diagnosis(vec![warning, Finding::failure("mtu", "no")]);
        assert!(text(&other).contains("FAILURE  mtu          no\n"));
        assert!(text(&other).ends_with("cannot be served; failures: 1, warnings: 1\n"));
    }

    #[test]
    fn json_has_the_command_of_each_finding() {
        let one = diagnosis(vec![Finding::warning("offloads", "it is on; switch it off with `off`")]);
        let value: serde_json::Value = serde_json::from_str(&json(&one)).expect("JSON");
        assert_eq!(value["findings"][0]["command"], "off");
        assert_eq!(value["findings"][0]["severity"], "warning");
        assert_eq!(value["devices"][0]["mode"]["xdp"], "native");
    }

    #[test]
    fn every_interface_has_a_line() {
        let facts = Facts {
            name: "nic0".to_owned(),
            mtu: 1500,
            up: true,
            ..Facts::default()
        };
        let table = table(&[facts]);
        let line = table.lines().nth(1).expect("a line");
        assert!(
            line.starts_with("nic0 ") && line.contains("no carrier") && line.contains("generic, copy"),
            "{line}"
        );
    }
}
