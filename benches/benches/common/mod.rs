//! How times are told.

use std::time::Duration;

pub(crate) type Anything<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// The times at which so many hundredths of all were done.
pub(crate) fn told(what: &str, unit: f64, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |hundredth: usize| times[(times.len() - 1) * hundredth / 100].as_secs_f64() * unit;
    println!("{what:>44} {:>10.2} {:>10.2} {:>10.2}", at(50), at(99), at(100));
}

pub(crate) fn heading(what: &str, unit: &str) {
    let of = |name: &str| format!("{name} {unit}");
    println!("\n{what:>44} {:>10} {:>10} {:>10}", of("p50"), of("p99"), of("most"));
}
