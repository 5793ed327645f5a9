//! Gathers what the engine and the server count, for `/metrics`.

use super::Fault;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

/// The bounds in which times are counted, in seconds: from what memory takes to what nobody waits for.
const SECONDS: [f64; 16] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// How often what was counted is summed up while nobody asks for it: until then each time is kept by itself.
const SUM_UP: Duration = Duration::from_secs(5);

/// Begins to gather, for the rest of the process.
pub(super) fn gather() -> Result<PrometheusHandle, Fault> {
    let fault = |error: metrics_exporter_prometheus::BuildError| Fault::Running(format!("metrics: {error}"));
    let builder = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS);
    let figures = builder.map_err(fault)?.install_recorder().map_err(fault)?;
    let handle = figures.clone();
    tokio::spawn(async move {
        let mut ticks = interval(SUM_UP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            handle.run_upkeep();
        }
    });
    Ok(figures)
}
