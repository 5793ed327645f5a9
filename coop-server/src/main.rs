//! The server program: the library's service with a command line around it.
#![forbid(unsafe_code)]

mod cli;
mod config;

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    match cli::run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("coop-server: {fault}");
            ExitCode::from(fault.code())
        }
    }
}
