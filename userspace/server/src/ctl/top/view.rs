//! The screen: everything fits into 80 columns and 24 lines, and what there is room for beyond is used.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Row, Table};

use super::heading;
use super::model::Model;

/// Shards that have lines of their own, at most, on a screen of 24 lines.
const SHARDS: u16 = 6;

/// Draws all of it.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model) {
    let spare = frame.area().height.saturating_sub(24);
    let shards = (model.shards() as u16).min(SHARDS + spare / 2);
    let [title, alarm, table, below, footer] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(shards + 3),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Line::from(heading(&model.info)).bold(), title);
    frame.render_widget(flood(model), alarm);
    draw_shards(frame, table, model, usize::from(shards));
    let [left, right] = Layout::horizontal([Constraint::Length(28), Constraint::Min(0)]).areas(below);
    let [states, latencies] = Layout::vertical([Constraint::Min(0), Constraint::Length(4)]).areas(left);
    draw_states(frame, states, model);
    draw_latencies(frame, latencies, model);
    let [losses, peers] = Layout::vertical([Constraint::Percentage(50), Constraint::Percentage(50)]).areas(right);
    draw_losses(frame, losses, model);
    draw_peers(frame, peers, model);
    frame.render_widget(Line::from("q quits").dim(), footer);
}

/// Whether there is a flood, and what is done about it.
fn flood(model: &Model) -> Line<'static> {
    let shards: Vec<String> = (0..model.shards())
        .filter(|&shard| model.row(Some(shard)).cookies)
        .map(|shard| shard.to_string())
        .collect();
    let answered = model.rate("xdp_tx_syn_cookie");
    let syns = model.row(None).syns;
    if shards.is_empty() {
        Line::from(format!("{} SYN/s, cookies off", short(syns)))
    } else {
        Line::from(format!(
            "{} SYN/s, SYN cookies on for queue {}: {} answered/s, {} connections/s by them",
            short(syns),
            shards.join(" "),
            short(answered),
            short(model.rate("tcp_cookie_connections")),
        ))
        .reversed()
    }
}

fn draw_shards(frame: &mut Frame<'_>, area: Rect, model: &Model, shards: usize) {
    let line = |name: String, shard: Option<usize>| {
        let row = model.row(shard);
        let lost = Span::from(short(row.lost));
        let lost = if row.lost > 0.0 { lost.bold() } else { lost };
        let numbers = [
            row.opened,
            row.requests,
            row.syns,
            row.rx_frames,
            row.rx_bits,
            row.tx_frames,
            row.tx_bits,
        ];
        let cells = core::iter::once(Span::from(name))
            .chain(numbers.map(|number| Span::from(short(number))))
            .chain([
                lost,
                Span::from(short(row.connections as f64)),
                Span::from(short(row.half_open as f64)),
                Span::from(if row.cookies { "on" } else { "" }),
            ]);
        Row::new(cells.map(|cell| Line::from(cell).right_aligned()))
    };
    let mut rows: Vec<Row<'_>> = (0..shards).map(|shard| line(shard.to_string(), Some(shard))).collect();
    rows.push(line("all".to_owned(), None).style(Style::new().add_modifier(Modifier::BOLD)));
    let heads = [
        "queue", "conn/s", "req/s", "SYN/s", "in f/s", "bit/s", "out f/s", "bit/s", "lost/s", "conns", "half", "ck",
    ];
    let header = Row::new(heads.map(|head| Line::from(head).right_aligned())).underlined();
    let widths = [5, 6, 6, 6, 6, 6, 7, 6, 6, 6, 6, 2].map(Constraint::Length);
    frame.render_widget(Table::new(rows, widths).header(header).column_spacing(1), area);
}

fn draw_states(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let (states, complete) = model.states();
    let title = if complete {
        "Connections"
    } else {
        "Connections (last round)"
    };
    let lines = states
        .iter()
        .map(|(state, count)| Line::from(format!("{state:<14}{count:>10}")));
    draw_list(frame, area, title, lines.collect());
}

fn draw_latencies(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let micros = |micros: Option<u64>| micros.map_or_else(|| "-".to_owned(), |micros| short(micros as f64));
    let lines = model.latencies().map(|(name, latency)| {
        let [p50, p99] = [latency.p50, latency.p99].map(micros);
        Line::from(format!("{name:<10}{p50:>7}{p99:>7}"))
    });
    draw_list(frame, area, "Latency/us    p50    p99", lines.collect());
}

fn draw_losses(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let losses = model.losses();
    let lines = losses.iter().map(|&(name, rate, total)| {
        let line = Line::from(format!("{name:<30}{:>8}/s {:>8}", short(rate), short(total as f64)));
        if rate > 0.0 { line.bold() } else { line.dim() }
    });
    draw_list(frame, area, "Lost, by reason", lines.collect());
}

fn draw_peers(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    // What the numbers leave.
    let width = usize::from(area.width).saturating_sub(28);
    let lines = model.peers().iter().map(|peer| {
        Line::from(format!(
            "{:<width$.width$}{:>7} in {:>6} out {:>6}",
            peer.address.to_string(),
            short(peer.connections as f64),
            short(peer.bytes_received as f64),
            short(peer.bytes_sent as f64)
        ))
    });
    draw_list(
        frame,
        area,
        "Busiest peers: connections, bytes on them",
        lines.collect(),
    );
}

fn draw_list(frame: &mut Frame<'_>, area: Rect, title: &'static str, lines: Vec<Line<'_>>) {
    let [head, body] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
    frame.render_widget(Line::from(title).underlined(), head);
    frame.render_widget(Paragraph::new(lines), body);
}

/// A number in at most six characters.
fn short(number: f64) -> String {
    let units = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    // What is rounded up to 1000 has the next unit.
    match units.iter().find(|&&(unit, _)| number >= unit * 0.9995) {
        Some(&(unit, name)) if number / unit >= 99.95 => format!("{:.0}{name}", number / unit),
        Some(&(unit, name)) => format!("{:.1}{name}", number / unit),
        None if number.fract() != 0.0 && number < 9.95 => format!("{number:.1}"),
        None => format!("{number:.0}"),
    }
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

    fn flooded() -> Model {
        model(&[
            ("tcp_connections", [1, 2], [3_000_000, 4]),
            ("tcp_passive_opens", [0, 0], [1234, 40]),
            ("xdp_tx_syn_cookie", [0, 0], [2_500_000, 0]),
            ("syn_cookies_active", [0, 0], [1, 0]),
            ("afxdp_rx_bytes", [0, 0], [125_000_000, 0]),
            ("tcp_drop_checksum", [0, 0], [0, 7]),
            ("xdp_drop_no_flow", [9, 0], [9, 0]),
        ])
    }

    #[test]
    fn everything_fits_into_80_columns_and_24_lines() {
        let screen = screen(&flooded(), 80, 24);
        let text = screen.join("\n");
        assert_eq!(screen[0], "tidegate 0.1.0  process 77  eth1");
        assert_eq!(
            screen[1],
            "2.5M SYN/s, SYN cookies on for queue 0: 2.5M answered/s, 0 connections/s by them"
        );
        let words = |line: usize| screen[line].split_whitespace().collect::<Vec<_>>();
        assert_eq!(words(2)[0], "queue");
        assert_eq!(
            words(3),
            ["0", "1.2k", "0", "2.5M", "0", "1.0G", "0", "0", "0", "3.0M", "0", "on"],
            "{text}"
        );
        assert_eq!(
            words(4),
            ["1", "40", "0", "0", "0", "0", "0", "0", "7", "4", "0"],
            "{text}"
        );
        assert_eq!(words(5)[0], "all");
        for phrase in [
            "TIME-WAIT             70",
            "ESTABLISHED            5",
            "tcp_drop_checksum                    7/s        7",
            "xdp_drop_no_flow                     0/s        9",
            "Latency/us    p50    p99",
            "rtt           120      -",
            "198.18.0.2                   12 in   3.0k out   2.5M",
            "Connections (last round)",
        ] {
            assert!(text.contains(phrase), "{phrase} in\n{text}");
        }
        assert_eq!(screen[23], "q quits");
    }

    #[test]
    fn a_screen_of_any_size_is_drawn() {
        for (width, height) in [(1, 1), (10, 3), (40, 12), (80, 24), (300, 100)] {
            screen(&flooded(), width, height);
        }
    }

    #[test]
    fn without_a_flood_there_is_no_alarm() {
        let screen = screen(&model(&[("tcp_connections", [1, 2], [3, 4])]), 80, 24);
        assert_eq!(screen[1], "0 SYN/s, cookies off");
    }

    #[test]
    fn numbers_are_short() {
        for (number, text) in [
            (0.0, "0"),
            (0.5, "0.5"),
            (9.94, "9.9"),
            (9.0, "9"),
            (999.4, "999"),
            (999.9, "1.0k"),
            (1234.0, "1.2k"),
            (123_456.0, "123k"),
            (999_999.0, "1.0M"),
            (7e9, "7.0G"),
            (4.2e15, "4200T"),
        ] {
            assert_eq!(short(number), text, "{number}");
        }
    }
}
