//! `man`: manual pages.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use crate::args;
use crate::exit::{Failure, Result};
use crate::output::Out;

pub(crate) const EXAMPLES: &str = "\
Examples:
  cchaha-run man | man -l -
  cchaha-run man --out-dir ~/.local/share/man/man1";

/// Print the manual page, or write those of all subcommands into a folder
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Man {
    /// Write cchaha-run.1, cchaha-run-complete.1 and so on into this folder
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    out_dir: Option<PathBuf>,
}

impl Man {
    pub(crate) fn run(self) -> Result {
        let command = args::command();
        if let Some(dir) = self.out_dir {
            return clap_mangen::generate_to(command, &dir)
                .map_err(|error| Failure::other(format!("cannot write to {}: {error}", dir.display())));
        }
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page).map_err(Failure::other)?;
        let mut out = Out::new();
        out.text(&String::from_utf8_lossy(&page))?;
        out.flush()
    }
}
