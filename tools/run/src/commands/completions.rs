//! `completions`: shell completion scripts.

use clap::Args;
use clap_complete::Shell;

use crate::args;
use crate::exit::Result;
use crate::output::Out;

pub(crate) const EXAMPLES: &str = "\
Examples:
  cchaha-run completions bash > ~/.local/share/bash-completion/completions/cchaha-run
  cchaha-run completions zsh > ~/.zfunc/_cchaha-run        (with fpath+=~/.zfunc in .zshrc)
  cchaha-run completions fish > ~/.config/fish/completions/cchaha-run.fish";

/// Print a shell completion script
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Completions {
    /// For which shell
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self) -> Result {
        let mut script = Vec::new();
        let mut command = args::command();
        let name = command.get_name().to_owned();
        clap_complete::generate(self.shell, &mut command, name.as_str(), &mut script);
        let mut script = String::from_utf8_lossy(&script).into_owned();
        if self.shell == Shell::Bash {
            // clap_complete 4.6.11 spells a hyphen in a program's name in two ways, so that subcommands are not found.
            script = script.replace(&name.replace('-', "__subcmd__"), &name.replace('-', "__"));
        }
        let mut out = Out::new();
        out.text(&script)?;
        out.flush()
    }
}
