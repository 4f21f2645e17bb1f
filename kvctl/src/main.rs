//! `kvctl`: the command-line client of kvd.

#![forbid(unsafe_code)]

mod cli;
mod command;
mod connect;
mod escape;
mod exit;
mod fault;
mod json;
mod output;

use clap::Parser as _;

use crate::cli::Cli;
use crate::exit::ExitCode;
use crate::fault::Fault;
use crate::output::Printer;

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    let printer = Printer::new(&cli.global);
    let code = match run(cli, &printer) {
        Ok(code) => code,
        Err(fault) => {
            eprint!("{}", fault.render(printer.colours()));
            fault.code
        }
    };
    code.into()
}

/// Carries out the command on this thread and prints its answer.
fn run(cli: Cli, printer: &Printer) -> Result<ExitCode, Fault> {
    let internal = |what: &str, error: std::io::Error| {
        Fault::new(ExitCode::Internal, format!("{what}: {error}"))
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| internal("the runtime", error))?;
    let answer = runtime.block_on(command::run(cli));
    // A lookup of a name that still waits must not hold up the end.
    runtime.shutdown_background();
    let answer = answer?;
    if let Some(view) = &answer.view {
        printer
            .print(&**view)
            .map_err(|error| internal("standard output", error))?;
    }
    Ok(answer.code)
}
