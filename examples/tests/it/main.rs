//! Each example is run as somebody would run it, and says exactly what it should.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod servers;

use std::path::{Path, PathBuf};
use std::process::Command;

/// Cargo builds the examples before it runs tests, and puts them beside the folder that those are in.
fn example(name: &str) -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.push("examples");
    path.push(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(
        path.exists(),
        "not built: run all targets, `cargo test -p coop-examples`"
    );
    path
}

/// What an example prints, run in a folder of its own.
fn says(name: &str, folder: &Path, arguments: &[&str]) -> String {
    let run = Command::new(example(name))
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{name} fails: {errors}");
    assert_eq!(errors, "");
    String::from_utf8(run.stdout).unwrap()
}

#[test]
fn embed() {
    let folder = tempfile::tempdir().unwrap();
    let conversation = "alice: /echo one answer, live for everyone\none answer, live for everyone";
    assert_eq!(says("embed", folder.path(), &[]), conversation);
    assert!(folder.path().join("chat.db").exists());
    assert_eq!(says("embed", folder.path(), &["other.db"]), conversation);
    assert!(folder.path().join("other.db").exists());
}

#[test]
fn custom_bot() {
    let folder = tempfile::tempdir().unwrap();
    let conversation = "\
alice: /stock list
stock: 12 bolts
       7 nuts
bob: @stock, take 3 bolts, please
stock: bob takes 3 bolts; 9 are left.
alice: Is that enough, Bob?
bob: take 100 nuts @stock
stock: There are only 7 nuts.
alice: /stock take many bolts
stock failed (internal): The bot failed.
alice: /stock dance
stock failed (invalid_request): I can only list and take.
";
    assert_eq!(says("custom_bot", folder.path(), &[]), conversation);
}

#[test]
fn custom_store() {
    let folder = tempfile::tempdir().unwrap();
    let conversation = "\
The store keeps the contract.
alice: Hello, Bob!
alice (edited): Hello, Bob.
bob: /echo What is kept here?
echo: What is kept here?
Alice has 2 unread messages, and the log has 8 events.
";
    assert_eq!(says("custom_store", folder.path(), &[]), conversation);
}

#[test]
fn two_servers() {
    let folder = tempfile::tempdir().unwrap();
    let told = "  alice: Can you hear me over there?\n  bob: /echo loud and clear\n  echo: loud and clear\n";
    let expected = format!("at the first server\n{told}at the second server\n{told}");
    assert_eq!(says("two_servers", folder.path(), &[]), expected);
}
