//! A run as tables and pictures.

use crate::{Answer, Moment, Outcome, PlanMoment};
use hybrid_wire::Source;
use std::fmt::Write;

impl Outcome {
    /// One row for each client, with a line of heads.
    pub fn clients_csv(&self) -> String {
        let mut csv = String::from("client,mode,uplink_bytes_per_s,arrived_s,completion_s,first_part_s,first_upload_s");
        for source in Source::ALL {
            let _ = write!(csv, ",{}_bytes", source.as_str().replace('-', "_"));
        }
        csv.push_str(",sent_bytes,stalls\n");
        let secs = |secs: Option<f64>| secs.map_or(String::new(), |secs| format!("{secs:.6}"));
        for (index, client) in self.clients.iter().enumerate() {
            let mode = client.mode.map_or(String::new(), |mode| mode.to_string());
            let _ = write!(csv, "{index},{mode},{:.0},", client.uplink);
            let times = [client.arrived_secs, client.completion_secs, client.first_part_secs, client.first_upload_secs];
            csv.push_str(&times.map(secs).join(","));
            for bytes in client.received {
                let _ = write!(csv, ",{bytes}");
            }
            let _ = writeln!(csv, ",{},{}", client.sent, client.stalls);
        }
        csv
    }

    /// The time series: one row for each moment, with a line of heads. The columns from `sending` on are shares of the clients
    /// that were looked at.
    pub fn series_csv(&self) -> String {
        let mut csv = String::from(
            "secs,server_use,uplink_use,server_copies,here,complete,queued,sending,empty,unacknowledged,asked,not_asked,\
             useless,neighbours_complete\n",
        );
        for moment in &self.series {
            let Moment { secs, server_use, uplink_use, server_copies, here, complete, queued, idle, .. } = moment;
            let _ =
                write!(csv, "{secs:.6},{server_use:.4},{uplink_use:.4},{server_copies:.4},{here},{complete},{queued}");
            let counts = [
                idle.sending,
                idle.empty,
                idle.unacknowledged,
                idle.asked,
                idle.not_asked,
                idle.useless,
                idle.neighbours_complete,
            ];
            for count in counts {
                let _ = write!(csv, ",{:.4}", f64::from(count) / f64::from(idle.looked_at.max(1)));
            }
            csv.push('\n');
        }
        csv
    }

    /// How many clients were complete how long after their arrival.
    pub fn completion_svg(&self) -> String {
        let mut times: Vec<f64> = self.clients.iter().filter_map(|client| client.completion_secs).collect();
        times.sort_by(f64::total_cmp);
        let count = self.clients.len().max(1) as f64;
        let mut points = vec![(0.0, 0.0)];
        for (place, time) in times.iter().enumerate() {
            points.push((*time, place as f64 / count));
            points.push((*time, (place + 1) as f64 / count));
        }
        let bound = vec![(self.bound_secs, 0.0), (self.bound_secs, 1.0)];
        let lines = [Line::new("complete", BLUE, points), Line::new("fluid bound", GREY, bound)];
        chart(&self.title(), "seconds after arrival", &Axis::new("share of clients", 1.0), None, &lines)
    }

    /// What the uplinks did, and how many copies the server had sent, as the time passed.
    pub fn series_svg(&self) -> String {
        let line =
            |figure: fn(&Moment) -> f64| self.series.iter().map(|moment| (moment.secs, figure(moment))).collect();
        let most = self.server_copies.max(1.0);
        let copies = self.series.iter().map(|moment| (moment.secs, moment.server_copies / most)).collect();
        let lines = [
            Line::new("clients' uplinks", BLUE, line(|moment| moment.uplink_use)),
            Line::new("server's uplink", ORANGE, line(|moment| moment.server_use)),
            Line::new("complete", GREEN, line(|moment| f64::from(moment.complete) / f64::from(moment.here.max(1)))),
            Line::new(&format!("copies sent, of {most:.2}"), GREY, copies),
        ];
        chart(&self.title(), "seconds", &Axis::new("share", 1.0), None, &lines)
    }

    fn title(&self) -> String {
        format!(
            "{}: {} clients, {} parts, seed {}: last / bound {:.3}, {:.2} copies",
            self.name, self.peers, self.parts, self.seed, self.last_ratio, self.server_copies
        )
    }
}

impl Answer {
    /// Viewers, what they need, and what comes from the server and from peers, as the time passes.
    pub fn svg(&self) -> String {
        let bits = |rate: f64| rate * 8.0;
        let most = self.series.iter().flat_map(|moment| [moment.need, moment.from_server, moment.from_peers]);
        let most = most.fold(1.0, f64::max);
        let (unit, unit_name) = match bits(most) {
            most if most >= 1e9 => (1e9, "Gbit/s"),
            most if most >= 1e6 => (1e6, "Mbit/s"),
            _ => (1e3, "kbit/s"),
        };
        let line = |figure: fn(&PlanMoment) -> f64| {
            self.series.iter().map(|moment| (moment.secs, bits(figure(moment)) / unit)).collect()
        };
        // What viewers need is their number times the bitrate, so one line is both: the axis on the right counts viewers.
        let lines = [
            Line::new("viewers, and what they need", GREY, line(|moment| moment.need)),
            Line::new("from peers", BLUE, line(|moment| moment.from_peers)),
            Line::new("from the server", ORANGE, line(|moment| moment.from_server)),
        ];
        let request = &self.plan.request;
        let title = format!(
            "{} viewers of {}, server {}: {:.1} % from peers, {:.1} % stall ({} simulated, seed {})",
            request.viewers,
            request.bitrate,
            request.uplink,
            100.0 * self.from_peers,
            100.0 * self.stalled_viewers,
            self.simulated,
            request.seed
        );
        let left = Axis::new(unit_name, nice(bits(most) / unit));
        let right = Axis::new("viewers", left.most * unit / bits(request.bitrate.as_u64() as f64));
        chart(&title, "seconds", &left, Some(&right), &lines)
    }
}

/// The least of 1, 2, 2.5 and 5 times a power of ten that is not below this, for an axis with five steps.
fn nice(most: f64) -> f64 {
    let power = 10_f64.powf(most.log10().floor());
    let multiples = [1.0, 2.0, 2.5, 5.0, 10.0].map(|multiple| multiple * power);
    multiples.into_iter().find(|multiple| *multiple >= most).unwrap_or(most)
}

const BLUE: &str = "#1f6feb";
const ORANGE: &str = "#d9730d";
const GREEN: &str = "#2c974b";
const GREY: &str = "#888888";

struct Line {
    name: String,
    colour: &'static str,
    points: Vec<(f64, f64)>,
}

impl Line {
    fn new(name: &str, colour: &'static str, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.to_owned(), colour, points }
    }
}

/// An axis that goes up from 0.
struct Axis {
    name: &'static str,
    most: f64,
}

impl Axis {
    fn new(name: &'static str, most: f64) -> Self {
        Self { name, most }
    }

    fn label(&self, share: f64) -> String {
        let value = share * self.most;
        if self.most >= 20.0 { format!("{value:.0}") } else { format!("{value:.1}") }
    }
}

/// A chart of lines whose values lie between 0 and the end of the axis on the left.
fn chart(title: &str, across: &str, up: &Axis, right: Option<&Axis>, lines: &[Line]) -> String {
    const WIDTH: f64 = 720.0;
    const HEIGHT: f64 = 360.0;
    const LEFT: f64 = 56.0;
    const TOP: f64 = 36.0;
    let end = lines.iter().flat_map(|line| &line.points).map(|(x, _)| *x).fold(0.0, f64::max).max(1e-9);
    let place = |(x, y): (f64, f64)| (LEFT + x / end * WIDTH, TOP + (1.0 - (y / up.most).clamp(0.0, 1.0)) * HEIGHT);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"{LEFT}\" y=\"20\" font-size=\"14\">{}</text>\n",
        LEFT + WIDTH + if right.is_some() { 80.0 } else { 24.0 },
        TOP + HEIGHT + 64.0,
        escaped(title)
    );
    for step in 0..=5 {
        let share = f64::from(step) / 5.0;
        let (_, y) = place((0.0, share * up.most));
        let (x, bottom) = place((share * end, 0.0));
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {y:.1}h{WIDTH}\" stroke=\"#dddddd\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{:.1}</text>",
            LEFT - 6.0,
            y + 4.0,
            up.label(share),
            bottom + 18.0,
            share * end
        );
        if let Some(right) = right {
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                LEFT + WIDTH + 6.0,
                y + 4.0,
                right.label(share)
            );
        }
    }
    for (index, line) in lines.iter().enumerate() {
        let points: Vec<String> =
            line.points.iter().map(|point| place(*point)).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let (x, y) = (LEFT + (WIDTH / lines.len() as f64) * index as f64, TOP + HEIGHT + 56.0);
        let _ = writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"{0}\" stroke-width=\"1.5\" points=\"{1}\"/>\
             <text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"{0}\">{2}</text>",
            line.colour,
            points.join(" "),
            escaped(&line.name)
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
         <text x=\"14\" y=\"{:.1}\" text-anchor=\"middle\" transform=\"rotate(-90 14 {:.1})\">{}</text>",
        LEFT + WIDTH / 2.0,
        TOP + HEIGHT + 36.0,
        escaped(across),
        TOP + HEIGHT / 2.0,
        TOP + HEIGHT / 2.0,
        escaped(up.name)
    );
    if let Some(right) = right {
        let (x, y) = (LEFT + WIDTH + 66.0, TOP + HEIGHT / 2.0);
        let _ = writeln!(
            svg,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\" transform=\"rotate(-90 {x:.1} {y:.1})\">{}</text>",
            escaped(right.name)
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
