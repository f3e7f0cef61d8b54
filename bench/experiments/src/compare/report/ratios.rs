//! The ratios of a comparison: tidegate's figures to those of the others.

use tidegate_report::Spread;

use super::super::plan::{Case, ClientKind, Load, Shape, Target};
use super::{Results, Run};

/// A ratio of two rows.
pub(super) struct Ratio {
    /// The name in the results.
    pub(super) name: &'static str,
    /// The description, for people.
    pub(super) meaning: &'static str,
    /// The ratios of runs of the same round; `None` if there is no such pair.
    pub(super) spread: Option<Spread>,
}

/// Returns the main ratios, measured by `client`.
pub(super) fn all(results: &Results, client: ClientKind) -> Vec<Ratio> {
    let server = |load, target| Case::Server { load, client, target };
    let per_s = |run: &Run| Some(run.per_s);
    let p99 = |run: &Run| Some(run.quantiles?.p99);
    let throughput = |load, other| {
        let cases = [server(load, Target::Tidegate), server(load, other)];
        paired(results, cases, per_s, per_s)
    };
    vec![
        Ratio {
            name: "cps_vs_nginx",
            meaning: "connections per second, tidegate to nginx",
            spread: throughput(Load::Cps, Target::Nginx),
        },
        Ratio {
            name: "cps_vs_kernel",
            meaning: "connections per second, tidegate to serve-kernel",
            spread: throughput(Load::Cps, Target::ServeKernel),
        },
        Ratio {
            name: "rps_vs_nginx",
            meaning: "requests per second, tidegate to nginx",
            spread: throughput(Load::Rps, Target::Nginx),
        },
        Ratio {
            name: "rps_vs_kernel",
            meaning: "requests per second, tidegate to serve-kernel",
            spread: throughput(Load::Rps, Target::ServeKernel),
        },
        Ratio {
            name: "p99_vs_kernel",
            meaning: "p99 at the same rate, tidegate to serve-kernel (below 1 is better)",
            spread: paired(
                results,
                [
                    server(Load::Latency, Target::Tidegate),
                    server(Load::Latency, Target::ServeKernel),
                ],
                p99,
                p99,
            ),
        },
        Ratio {
            name: "frames_vs_reflect",
            meaning: "frames per second under rps, tidegate to a bare AF_XDP reflect of the same frames",
            spread: frames(results, server(Load::Rps, Target::Tidegate), Shape::Request),
        },
    ]
}

/// Returns the ratio that is not among the main ones: a connection has frames of other lengths than a request, and not
/// as many one way as the other.
pub(super) fn cps_frames(results: &Results, client: ClientKind) -> Ratio {
    let case = Case::Server {
        load: Load::Cps,
        client,
        target: Target::Tidegate,
    };
    Ratio {
        name: "cps_frames_vs_reflect",
        meaning: "frames per second under cps, tidegate to a bare AF_XDP reflect of the same frames",
        spread: frames(results, case, Shape::Connection),
    }
}

/// Returns the ratios of `client` as they are shown: those of the results that were measured, and the one beside them.
pub(super) fn shown(results: &Results, client: ClientKind) -> Vec<Ratio> {
    let mut ratios = all(results, client);
    ratios.push(cps_frames(results, client));
    ratios.retain(|ratio| ratio.spread.is_some());
    ratios
}

fn frames(results: &Results, case: Case, shape: Shape) -> Option<Spread> {
    paired(results, [case, Case::Reflect(shape)], Run::frames_per_s, |run| {
        Some(run.per_s)
    })
}

/// Returns the client whose ratios are those of the results: the bypass client, unless only the other one was measured.
pub(super) fn main_client(results: &Results) -> ClientKind {
    if clients(results).first() == Some(&ClientKind::Kernel) {
        ClientKind::Kernel
    } else {
        ClientKind::Bypass
    }
}

/// Returns the clients that measured something.
pub(super) fn clients(results: &Results) -> Vec<ClientKind> {
    let of_run = |run: &Run| match run.case {
        Case::Server { client, .. } => Some(client),
        Case::Reflect(_) => None,
    };
    let mut clients: Vec<ClientKind> = results.runs.iter().filter_map(of_run).collect();
    clients.sort_unstable();
    clients.dedup();
    clients
}

/// Returns the ratio of `value` of the first case to `divisor` of the second, for each round that has both.
fn paired(
    results: &Results,
    [first, second]: [Case; 2],
    value: impl Fn(&Run) -> Option<f64>,
    divisor: impl Fn(&Run) -> Option<f64>,
) -> Option<Spread> {
    let find = |case: Case, round: u32| {
        results
            .runs
            .iter()
            .find(move |run| run.case == case && run.round == round)
    };
    let of_first = results.runs.iter().filter(|run| run.case == first);
    Spread::of(of_first.filter_map(|run| {
        let divisor = divisor(find(second, run.round)?).filter(|&divisor| divisor > 0.0)?;
        Some(value(run)? / divisor)
    }))
}

#[cfg(test)]
mod tests {
    use super::super::samples::{case, report, run};
    use super::*;

    fn of(ratios: &[Ratio], name: &str) -> Option<Spread> {
        ratios.iter().find(|ratio| ratio.name == name).unwrap().spread
    }

    #[test]
    fn ratios_are_those_of_the_same_round() {
        let mut report = Results::default();
        for (round, tidegate, nginx) in [(0, 300.0, 100.0), (1, 800.0, 200.0), (2, 50.0, 10.0)] {
            report.add(run(case(Load::Cps, Target::Tidegate), round, tidegate));
            report.add(run(case(Load::Cps, Target::Nginx), round, nginx));
        }
        // Without a partner it counts for nothing.
        report.add(run(case(Load::Cps, Target::Tidegate), 3, 1e9));
        let spread = of(&all(&report, ClientKind::Bypass), "cps_vs_nginx").unwrap();
        assert_eq!((spread.median, spread.min, spread.max), (4.0, 3.0, 5.0));
    }

    #[test]
    fn every_ratio_has_its_rows() {
        let ratios = all(&report(), ClientKind::Bypass);
        let near = |name, expected: f64| {
            let median = of(&ratios, name).unwrap().median;
            assert!((median - expected).abs() < 1e-9, "{name}: {median}");
        };
        near("cps_vs_nginx", 120.0 / 30.0);
        near("cps_vs_kernel", 120.0 / 48.0);
        near("rps_vs_nginx", 510.0 / 170.0);
        near("rps_vs_kernel", 510.0 / 204.0);
        near("p99_vs_kernel", 0.5);
        near("frames_vs_reflect", 2.0 * 510.0 / 1_200.0);
        let cps = cps_frames(&report(), ClientKind::Bypass).spread.unwrap().median;
        assert!((cps - 2.0 * 120.0 / 1_500.0).abs() < 1e-9, "{cps}");
    }

    #[test]
    fn what_was_not_measured_has_no_ratio() {
        let mut report = Results::default();
        report.add(run(case(Load::Cps, Target::Tidegate), 0, 100.0));
        report.add(run(case(Load::Cps, Target::ServeKernel), 0, 0.0));
        assert!(
            all(&report, ClientKind::Bypass)
                .iter()
                .all(|ratio| ratio.spread.is_none())
        );
    }

    #[test]
    fn the_bypass_clients_ratios_come_first() {
        assert_eq!(main_client(&report()), ClientKind::Bypass);
        let kernel = Case::Server {
            load: Load::Rps,
            client: ClientKind::Kernel,
            target: Target::Nginx,
        };
        let mut only_kernel = Results::default();
        only_kernel.add(run(kernel, 0, 1.0));
        assert_eq!(main_client(&only_kernel), ClientKind::Kernel);
        let mut both = report();
        both.add(run(kernel, 0, 1.0));
        assert_eq!(main_client(&both), ClientKind::Bypass);
        assert_eq!(clients(&both), [ClientKind::Bypass, ClientKind::Kernel]);
    }
}
