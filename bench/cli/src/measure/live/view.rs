//! The screen: everything fits into 80 columns and 24 lines, and what there is room for beyond is the graph's.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Stylize;
use ratatui::text::Line;
use ratatui::widgets::{Paragraph, Sparkline};
use tidegate_report::Quantiles;
use tidegate_report::format::short;

use super::model::Model;

/// Draws all of it.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model) {
    let [
        title,
        client,
        _,
        phase,
        bar,
        _,
        rate,
        graph,
        _,
        latencies,
        _,
        open,
        errors,
        footer,
    ] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(0),
        Constraint::Length(1),
        Constraint::Length(5),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Line::from(model.heading.as_str()).bold(), title);
    frame.render_widget(Line::from(model.client.as_str()).dim(), client);
    frame.render_widget(Line::from(phase_line(model)), phase);
    frame.render_widget(Line::from(bar_line(model, usize::from(bar.width))), bar);
    frame.render_widget(Line::from(rate_line(model)), rate);
    draw_graph(frame, graph, model);
    draw_latencies(frame, latencies, model);
    frame.render_widget(Line::from(open_line(model)), open);
    draw_errors(frame, errors, model);
    let help = if model.is_ending {
        "ending; once more: at once, without results"
    } else {
        "q or Ctrl-C ends the run, with what was measured"
    };
    frame.render_widget(Line::from(help).dim(), footer);
}

fn phase_line(model: &Model) -> String {
    let in_phase = model.tick.elapsed.saturating_sub(model.phase_since).as_secs();
    let of = match model.phase_length() {
        Some(length) => format!(" of {}", length.as_secs_f64()),
        None => String::new(),
    };
    let phase = format!("{:<10} {in_phase}{of} s", model.tick.phase.name());
    let whole = format!(
        "whole run {} of {} s",
        model.tick.elapsed.as_secs(),
        model.total.as_secs_f64()
    );
    format!("{phase:<40}{whole}")
}

fn bar_line(model: &Model, width: usize) -> String {
    let part = model.tick.elapsed.as_secs_f64() / model.total.as_secs_f64().max(f64::MIN_POSITIVE);
    let full = (part.min(1.0) * width as f64) as usize;
    "█".repeat(full) + &"░".repeat(width - full)
}

fn rate_line(model: &Model) -> String {
    let unit = model.tick.unit;
    let last = model.rates.back().copied().unwrap_or_default();
    format!(
        "{unit}/s  now {}  last second {}  highest {}",
        short(model.tick.per_second),
        short(last),
        short(model.rates.iter().copied().fold(0.0, f64::max))
    )
}

/// The rates of the last seconds, the present one on the right.
fn draw_graph(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let count = model.rates.len().min(usize::from(area.width));
    let rates: Vec<u64> = model
        .rates
        .iter()
        .skip(model.rates.len() - count)
        .map(|&rate| rate as u64)
        .collect();
    frame.render_widget(Sparkline::default().data(&rates), area);
}

fn draw_latencies(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let head = format!(
        "{:<26}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}",
        "Latency/us", "count", "p50", "p90", "p99", "p99.9", "max"
    );
    let line = |name: &str, quantiles: Option<Quantiles>| match quantiles {
        Some(of) => {
            let times = [of.p50, of.p90, of.p99, of.p999, of.max].map(|time| format!("{time:>9.1}"));
            Line::from(format!("{name:<26}{:>9}{}", short(of.count as f64), times.concat()))
        }
        None => Line::from(format!("{name:<26}{:>9}", "-")).dim(),
    };
    let lines = vec![
        Line::from(head).underlined(),
        line("requests, last second", model.latency),
        line("requests, so far", model.latency_so_far),
        line("connecting, last second", model.connect),
        line("connecting, so far", model.connect_so_far),
    ];
    frame.render_widget(Paragraph::new(lines), area);
}

fn open_line(model: &Model) -> String {
    format!(
        "open       {} now, {} at most; {} established in the last second",
        model.tick.open,
        model.open_max.max(model.tick.open),
        short(model.connects_per_second)
    )
}

fn draw_errors(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let line = if model.errors.is_empty() {
        Line::from("errors     none")
    } else {
        let kinds: Vec<String> = model
            .errors
            .iter()
            .map(|&(kind, count)| format!("{kind} {}", short(count as f64)))
            .collect();
        Line::from(format!("errors     {}", kinds.join(", "))).bold()
    };
    frame.render_widget(line, area);
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::model::tests::model;
    use super::*;

    fn screen(model: &Model, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, model)).unwrap();
        let buffer = terminal.backend().buffer();
        let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..height).map(|y| line(y).trim_end().to_owned()).collect()
    }

    #[test]
    fn everything_fits_into_80_columns_and_24_lines() {
        let screen = screen(&model(), 80, 24);
        let text = screen.join("\n");
        for phrase in [
            "tidegate-bench cps  http://198.18.0.1:80/x",
            "kernel, 64 connections",
            "sustain    10 of 12 s                   whole run 12 of 14 s",
            "connections/s  now 41k  last second 11k  highest 11k",
            "Latency/us                    count      p50      p90      p99    p99.9      max",
            "requests, last second",
            "connecting, so far                -",
            "open       63 now, 64 at most; 3 established in the last second",
            "errors     refused 1, reset 1",
        ] {
            assert!(text.contains(phrase), "{phrase} in\n{text}");
        }
        let words: Vec<&str> = screen[17].split_whitespace().collect();
        assert_eq!(words[..4], ["requests,", "so", "far", "1k"], "{text}");
        assert_eq!(words.len(), 9, "{text}");
        // The latest rate is the highest of the graph, and there are 12 of which the first is nothing.
        assert_eq!(screen[7].trim().chars().last(), Some('█'), "{text}");
        assert_eq!(
            (screen[7].chars().count(), screen[13].trim().chars().count()),
            (12, 11),
            "{text}"
        );
        assert_eq!(screen[4].chars().filter(|&c| c == '█').count(), 68, "{text}");
        assert_eq!(screen[23], "q or Ctrl-C ends the run, with what was measured");
    }

    #[test]
    fn a_screen_of_any_size_is_drawn() {
        for (width, height) in [(1, 1), (10, 3), (40, 12), (80, 24), (300, 100)] {
            screen(&model(), width, height);
        }
    }

    #[test]
    fn it_says_that_it_ends() {
        let mut model = model();
        model.is_ending = true;
        assert!(screen(&model, 80, 24)[23].starts_with("ending"));
    }
}
