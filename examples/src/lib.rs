//! Programs to start from. Each is an example of its own: `cargo run -p coop-examples --example embed`.
