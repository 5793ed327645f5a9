//! A load program over real sockets: what a delivered message, an answer, an idle socket and a come-and-go cost the
//! server, and whether anything is lost, doubled or out of order.
//!
//! `cargo run --release -p coop-benches --bin swarm -- [SCENARIO …] [--quick] [--json FILE] [--minutes N]`; without a scenario all of
//! them but `soak`, which takes ten minutes. Each server is a process of its own, whose CPU time and memory are read from `/proc`. Ours stores
//! each message durably before it delivers it; the [`others`] store nothing.

mod answering;
mod clients;
mod contest;
mod growth;
mod hardship;
mod others;
mod report;
mod scenarios;
mod servers;

use coop_benches::Anything;
use report::Report;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What was asked for.
struct Wish {
    scenarios: Vec<String>,
    /// Everything small: whether it works, not what it costs.
    quick: bool,
    json: Option<PathBuf>,
    /// How long `soak` goes on.
    minutes: f64,
}

impl Wish {
    fn read(mut words: impl Iterator<Item = String>) -> Anything<Self> {
        let mut wish = Self {
            scenarios: Vec::new(),
            quick: false,
            json: None,
            minutes: 10.0,
        };
        while let Some(word) = words.next() {
            match word.as_str() {
                "--quick" => wish.quick = true,
                "--json" => wish.json = Some(words.next().ok_or("--json needs a file")?.into()),
                "--minutes" => wish.minutes = words.next().ok_or("--minutes needs a number")?.parse()?,
                known if scenarios::NAMES.contains(&known) => wish.scenarios.push(word),
                other => {
                    let names = scenarios::NAMES.join(", ");
                    return Err(format!("{other}? There are --quick, --json FILE, --minutes N and {names}.").into());
                }
            }
        }
        Ok(wish)
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("swarm: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Anything<()> {
    if let Ok(what) = std::env::var(servers::AS_SERVER) {
        let (kind, port_file) = what.split_once(' ').ok_or("what server?")?;
        let port_file = Path::new(port_file);
        return match kind {
            answering::WORD => answering::be(port_file),
            kind => others::Other::be(kind, port_file),
        };
    }
    let wish = Wish::read(std::env::args().skip(1))?;
    servers::open_many_files()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let mut report = Report::default();
    for name in scenarios::NAMES {
        // Whoever wants everything does not want to wait ten minutes for one of them.
        let usual = wish.scenarios.is_empty() && (wish.quick || name != "soak");
        if usual || wish.scenarios.iter().any(|wanted| wanted == name) {
            let cpu = servers::cpu_of("self")?;
            let begun = std::time::Instant::now();
            let played = runtime.block_on(scenarios::play(name, wish.quick, wish.minutes, &mut report));
            // What was measured is kept also if something fails later.
            if let Some(path) = &wish.json {
                std::fs::write(path, report.json())?;
            }
            played?;
            let share = (servers::cpu_of("self")? - cpu).as_secs_f64() / begun.elapsed().as_secs_f64();
            if share > 1.8 {
                println!("  the load itself took {share:.1} cores: the servers had to wait for it");
            }
        }
    }
    Ok(())
}
