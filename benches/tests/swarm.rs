//! The load program works: everything small, over real sockets, and nothing lost, doubled or out of order.

use std::process::Command;

#[test]
fn every_scenario_can_be_played() {
    let folder = tempfile::tempdir().expect("a folder");
    let json = folder.path().join("figures.json");
    let played = Command::new(env!("CARGO_BIN_EXE_swarm"))
        .args(["--quick", "--json"])
        .arg(&json)
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&played.stderr);
    assert!(played.status.success(), "{said}");
    let figures: serde_json::Value = serde_json::from_slice(&std::fs::read(json).expect("figures")).expect("JSON");
    for scenario in [
        "fanout 20 1",
        "fanout 20 8",
        "steady 50",
        "stream",
        "growth: room size",
        "growth: rooms",
        "growth: sockets",
        "growth: senders",
        "growth: history",
        "paced",
        "answer",
        "rooms",
        "idle",
        "churn",
        "slow",
        "flood",
        "soak",
    ] {
        let mut rows = figures.as_array().into_iter().flatten();
        let row = rows.find(|row| row["scenario"] == scenario);
        assert!(
            row.is_some_and(|row| row["median"].is_number()),
            "{scenario}: {figures}"
        );
    }
}

#[test]
fn what_is_not_known_is_refused() {
    let refused = Command::new(env!("CARGO_BIN_EXE_swarm"))
        .arg("fan-out")
        .output()
        .expect("it starts");
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("fanout"));
}
