//! `tidegate`: serves HTTP and echo beside the kernel, through XDP and AF_XDP.

mod access_log;
mod admin;
mod arguments;
mod config_file;
mod config_source;
mod control;
mod counter_rows;
mod counters_text;
mod ctl;
mod doctor;
mod drain;
mod executable;
mod failure;
mod generate;
mod kernel_listeners;
mod listen;
mod log;
mod main_loop;
mod nic;
mod open_files;
mod origins;
mod output;
mod privileges;
mod rates;
mod reload;
mod serve;
mod service_counters;
mod service_manager;
mod settings;
mod signals;
mod taken_over;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::arguments::{Arguments, Command, ServeArguments};
use crate::failure::Failure;
use crate::output::OutputTimeout;
use crate::settings::Settings;

/// The C library's allocator keeps what connections have freed; this one gives it back by itself, a little at a time.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The time that the last output may take to be read.
const LAST_OUTPUT: OutputTimeout = OutputTimeout {
    idle: Duration::from_secs(1),
    total: Duration::from_secs(10),
};

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Serve(arguments) => serve(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Ctl(arguments) => ctl::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Doctor(arguments) => doctor::run(*arguments),
        Command::Nic(command) => nic::run(command),
        Command::CheckConfig { file } => config_file::load(&file).map(|_| {
            say("OK\n");
            ExitCode::SUCCESS
        }),
        Command::Completions { shell } => {
            say(&generate::completions(shell));
            Ok(ExitCode::SUCCESS)
        }
        Command::Man { directory } => generate::man_pages(&directory).map(|()| ExitCode::SUCCESS),
    };
    let code = match result {
        Ok(code) => code,
        Err(failure) => {
            log::tell_error(format_args!("{failure}"));
            ExitCode::from(failure.exit_code())
        }
    };
    output::finish(LAST_OUTPUT);
    code
}

fn serve(arguments: &ServeArguments) -> Result<(), Failure> {
    arguments.log_format.into_iter().for_each(log::set_format);
    let settings = Settings::gather(arguments)?;
    log::start(&settings.config.log);
    privileges::prepare(&settings)?;
    serve::run(&settings, arguments.quiet)
}

/// Has `text` written to standard output, without waiting for it.
fn say(text: &str) {
    if let Some(output) = output::stdout() {
        output.write(text.as_bytes());
    }
}
